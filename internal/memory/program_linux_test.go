package memory

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// smaps of a gate, shortened.
const smaps = `00400000-00f0b000 r-xp 00000000 fe:00 1234                              /opt/postern 2
Size:              11308 kB
Rss:                9040 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd ex mr mw me
00f0b000-01b00000 r--p 00b0b000 fe:00 1234                               /opt/postern 2
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd mr mw me
01b00000-01bbe000 rw-p 01700000 fe:00 1234                               /opt/postern 2
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd wr mr mw me ac
01bbe000-01bc0000 r--p 01800000 fe:00 1234                               /opt/postern 2
Anonymous:             8 kB
Swap:                  0 kB
VmFlags: rd mr mw me ac
01bc0000-01bc2000 r--p 01802000 fe:00 1234                               /opt/postern 2
Anonymous:             0 kB
Swap:                  8 kB
VmFlags: rd mr mw me ac
01bc2000-01bc4000 r--p 01804000 fe:00 1234                               /opt/postern 2
VmFlags: rd mr mw me ac
7f0000000000-7f0000020000 r-xp 00000000 fe:00 99                         /usr/lib/libc.so.6
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd ex mr mw me
7f0000040000-7f0000060000 rw-p 00000000 00:00 0
Anonymous:           128 kB
Swap:                  0 kB
VmFlags: rd wr mr mw me ac
7f0000060000-7f0000080000 r--p 00000000 fe:00 1234                       /opt/postern 2
Anonymous:             0 kB
`

func TestOnlyPagesThatTheFileHasTooAreLetGo(t *testing.T) {
	want := []mapping{{0x400000, 0xf0b000}, {0xf0b000, 0x1b00000}}
	if got := unchanged(strings.NewReader(smaps), "/opt/postern 2"); !slices.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}

func TestTheProgramGoesOnWithoutItsPages(t *testing.T) {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	size := func() (kb int) {
		b, err := os.ReadFile("/proc/self/smaps")
		if err != nil {
			t.Fatal(err)
		}
		if len(unchanged(strings.NewReader(string(b)), program)) == 0 {
			t.Fatal("no mapping that can be let go")
		}
		return fileKB(string(b), program)
	}
	before := size()
	letGo()
	if after := size(); after > before*9/10 {
		t.Errorf("%d KB of the program before, %d after", before, after)
	}
}

// fileKB is how much of a file is mapped read-only, and present.
func fileKB(smaps, file string) (kb int) {
	ours := false
	for line := range strings.Lines(smaps) {
		fields := strings.Fields(line)
		switch {
		case len(fields) >= 6 && strings.Contains(fields[0], "-"):
			ours = strings.HasSuffix(strings.TrimSpace(line), file) && fields[1][1] == '-'
		case ours && len(fields) > 1 && fields[0] == "Rss:":
			n, _ := strconv.Atoi(fields[1])
			kb += n
		}
	}
	return kb
}
