package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"postern/internal/gate"
	"postern/internal/text"
)

// release is the version; a build may set it with
// -ldflags "-X main.release=v1.2.3".
var release = ""

// buildInfo returns the version and the commit, as far as the build knows them.
func buildInfo() gate.Build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = new(debug.BuildInfo)
	}
	settings := make(map[string]string)
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	return gate.Build{
		Version:  cmp.Or(release, strings.Trim(info.Main.Version, "()"), "devel"),
		Revision: cmp.Or(settings["vcs.revision"], "unknown") + text.Either(settings["vcs.modified"] == "true", "+dirty", ""),
	}
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
