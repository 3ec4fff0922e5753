package memory

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// letGo has the system take the pages of the program's own file out of the
// process. They stay in the system's cache of the file, and what is needed again
// is mapped again when it is touched, in microseconds. Since the system maps
// sixteen pages around each that is touched, most of what a process of this size
// has at first is code and tables that only the start has come near.
func letGo() {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer f.Close()
	for _, m := range unchanged(f, program) {
		// Without success, as where memory is locked, nothing is lost.
		_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, m.start, m.end-m.start, syscall.MADV_DONTNEED)
	}
}

type mapping struct{ start, end uintptr }

// unchanged finds, in the format of proc_pid_smaps(5), the mappings of a file
// that cannot be written and hold the file's own pages alone: a page that was
// changed before it was made read-only, as by a dynamic linker, has no other copy.
func unchanged(smaps io.Reader, file string) []mapping {
	var found []mapping
	var last mapping
	var readOnly, clean bool
	for s := bufio.NewScanner(smaps); s.Scan(); {
		fields := strings.Fields(s.Text())
		switch {
		case len(fields) < 2:
		case fields[0] == "Anonymous:":
			clean = fields[1] == "0"
		case fields[0] == "Swap:":
			clean = clean && fields[1] == "0"
		case fields[0] == "VmFlags:": // the last line of a mapping
			if readOnly && clean {
				found = append(found, last)
			}
			readOnly, clean = false, false
		case len(fields) >= 6:
			readOnly = strings.HasSuffix(s.Text(), " "+file) && (fields[1] == "r--p" || fields[1] == "r-xp")
			clean = false
			if _, err := fmt.Sscanf(fields[0], "%x-%x", &last.start, &last.end); err != nil {
				readOnly = false
			}
		}
	}
	return found
}
