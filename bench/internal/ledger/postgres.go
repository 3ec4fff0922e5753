package ledger

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// cluster is a PostgreSQL of its own on a loopback port, without durability, and
// otherwise as it comes but for its buffers. The system's own are never touched.
type cluster struct {
	bin, dir string
	port     int
	cmd      *exec.Cmd
	gone     chan struct{}
}

// postgresBin is where the programs of the newest PostgreSQL are.
func postgresBin() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		return "", errors.New("the Debian package postgresql is not installed")
	}
	slices.Sort(found)
	return filepath.Dir(found[len(found)-1]), nil
}

// newCluster makes a cluster below a directory that everybody may enter.
func newCluster(dir string) (*cluster, error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, err
	}
	c := &cluster{bin: bin, dir: filepath.Join(dir, "cluster")}
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		return nil, err
	}
	if id := unprivileged(); id != nil {
		if err := os.Chown(c.dir, int(id.Uid), int(id.Gid)); err != nil {
			return nil, err
		}
	}
	out, err := c.command("initdb", "-D", c.dir, "-U", "postern", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("making a PostgreSQL cluster: %w\n%s", err, out)
	}
	return c, nil
}

// copyTo copies a cluster that does not run.
func (c *cluster) copyTo(dir string) (*cluster, error) {
	to := &cluster{bin: c.bin, dir: filepath.Join(dir, "cluster")}
	if out, err := exec.Command("cp", "-a", c.dir, to.dir).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("copying the cluster: %w\n%s", err, out)
	}
	return to, nil
}

// unprivileged is whom PostgreSQL runs as where this process is root, as it
// refuses to run as root.
func unprivileged() *syscall.Credential {
	if os.Getuid() != 0 {
		return nil
	}
	id := &syscall.Credential{Uid: 65534, Gid: 65534, NoSetGroups: true}
	if u, err := user.Lookup("postgres"); err == nil {
		uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
		gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
		if errUID == nil && errGID == nil {
			id.Uid, id.Gid = uint32(uid), uint32(gid)
		}
	}
	return id
}

func (c *cluster) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, program), args...)
	cmd.Dir = c.dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC"}
	// Ctrl-C is for the harness, which stops it last.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: unprivileged(), Setpgid: true}
	return cmd
}

// start returns once the server answers.
func (c *cluster) start(ctx context.Context) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	c.port = l.Addr().(*net.TCPAddr).Port
	l.Close()
	log, err := os.Create(c.dir + ".log")
	if err != nil {
		return err
	}
	defer log.Close()
	c.cmd = c.command("postgres", "-D", c.dir, "-p", strconv.Itoa(c.port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
		"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=512MB", "-c", "max_wal_size=4GB")
	c.cmd.Stdout, c.cmd.Stderr = log, log
	if err := c.cmd.Start(); err != nil {
		return err
	}
	gone := make(chan struct{})
	c.gone = gone
	go func(cmd *exec.Cmd) { cmd.Wait(); close(gone) }(c.cmd)
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		conn, err := pgx.Connect(ctx, c.url())
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-gone:
			text, _ := os.ReadFile(log.Name())
			return fmt.Errorf("PostgreSQL has ended: %s", strings.TrimSpace(string(text)))
		default:
		}
		if time.Now().After(end) || ctx.Err() != nil {
			c.stop()
			return fmt.Errorf("PostgreSQL does not answer: %w", err)
		}
	}
}

func (c *cluster) url() string {
	return fmt.Sprintf("postgres://postern@127.0.0.1:%d/postgres?sslmode=disable", c.port)
}

// vacuum does at once what autovacuum does after a migration, which is no part of how
// idle a ledger is. There may be no cluster.
func (c *cluster) vacuum(ctx context.Context) error {
	if c == nil {
		return nil
	}
	conn, err := pgx.Connect(ctx, c.url())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, "VACUUM ANALYZE")
	return err
}

// stop ends the server and all connections to it.
func (c *cluster) stop() {
	if c.cmd == nil {
		return
	}
	c.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-c.gone:
	case <-time.After(time.Minute):
		c.cmd.Process.Signal(syscall.SIGQUIT)
		<-c.gone
	}
	c.cmd = nil
}
