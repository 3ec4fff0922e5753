package check

import (
	"os"
	"strconv"
	"strings"

	"postern/internal/config"
)

// started warns of variables that the running Postern has otherwise since its start, of
// those that begin with a name without its prefix. pid is its process; "" is the one that
// holds the admin port. It returns the process; "" if that, or what it has, cannot be known.
func (r *Report) started(cfg *config.Config, environ []string, pid, begin string) (process string) {
	process, is := "process "+pid, true
	if pid == "" {
		process, is = strings.CutSuffix(config.Holder(cfg.AdminListen), " (postern)")
		pid = strings.TrimPrefix(process, "process ")
	}
	if _, err := strconv.Atoi(pid); err != nil || !is {
		return ""
	}
	has, err := os.ReadFile("/proc/" + pid + "/environ") // proc_pid_environ(5)
	if err != nil || len(has) == 0 {
		return ""
	}
	for _, d := range config.Differences(environ, strings.Split(string(has), "\x00")) {
		if strings.HasPrefix(d.Variable, config.Prefix+begin) {
			r.warn(d.Variable, "%s here, but the Postern that runs (%s) has %s since its start: a reload does not change that: restart it (systemctl restart postern)", d.Here, process, d.There)
		}
	}
	return process
}
