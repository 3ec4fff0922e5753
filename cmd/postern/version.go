package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// release is the version; a build may set it with
// -ldflags "-X main.release=v1.2.3".
var release = ""

// buildVersion returns the version and the commit that it was built from, as
// far as the build knows them.
func buildVersion() (ver, revision string) {
	ver, revision = release, "unknown"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return cmp.Or(ver, "devel"), revision
	}
	modified := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = "+dirty"
		}
	}
	if ver == "" && info.Main.Version != "(devel)" {
		ver = info.Main.Version
	}
	return cmp.Or(ver, "devel"), revision + modified
}

func version(_ context.Context, sys system) int {
	fs := flag.NewFlagSet("version", flag.ContinueOnError)
	if code, done := sys.parse(fs, func(w io.Writer) {
		fmt.Fprintln(w, "postern version prints version, commit and Go version.")
	}); done {
		return code
	}
	ver, revision := buildVersion()
	fmt.Fprintf(sys.stdout, "postern %s (commit %s, %s %s/%s)\n", ver, revision, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return exitOK
}
