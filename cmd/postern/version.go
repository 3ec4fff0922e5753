package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"

	"postern/internal/gate"
	"postern/internal/text"
)

// release is the version; a build may set it with
// -ldflags "-X main.release=v1.2.3".
var release = ""

// buildInfo returns the version and the commit, as far as the build knows them.
func buildInfo() gate.Build {
	ver, revision := release, "unknown"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return gate.Build{Version: cmp.Or(ver, "devel"), Revision: revision}
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
	return gate.Build{Version: cmp.Or(ver, "devel"), Revision: revision + modified}
}

func version(_ context.Context, sys system) error {
	fs := flag.NewFlagSet("version", flag.ContinueOnError)
	asJSON := fs.Bool("json", false, "write JSON")
	if err := sys.parse(fs); err != nil {
		return err
	}
	b := buildInfo()
	if *asJSON {
		return text.WriteJSON(sys.stdout, map[string]string{"version": b.Version, "revision": b.Revision, "goversion": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH})
	}
	fmt.Fprintf(sys.stdout, "postern %s (commit %s, %s %s/%s)\n", b.Version, b.Revision, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return nil
}
