package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"securefiles/internal/terminal"
)

type versionCommand struct {
	JSON bool `name:"json" help:"Print as JSON."`
}

// Help shows an example.
func (versionCommand) Help() string { return "Example:\n  securefiles version --json" }

// A Build is what the binary knows of itself.
type Build struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Go      string `json:"go"`
}

// Set by the linker, as the Makefile does; a plain go build leaves them empty, and Go's
// own record of the repository is told in their place.
var version, commit string

// Version returns what the binary knows of itself.
func Version() Build {
	b := Build{Version: "devel", Commit: "unknown", Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		if v := info.Main.Version; v != "" && v != "(devel)" {
			b.Version = strings.TrimPrefix(v, "v")
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				b.Commit = s.Value
			}
		}
	}
	if version != "" {
		b.Version = version
	}
	if commit != "" {
		b.Commit = commit
	}
	return b
}

func (cmd *versionCommand) Run(env Env) error {
	b := Version()
	if cmd.JSON {
		return terminal.WriteJSON(env.Stdout, b)
	}
	_, err := fmt.Fprintf(env.Stdout, "securefiles %s (commit %s, %s)\n", b.Version, b.Commit, b.Go)
	return err
}
