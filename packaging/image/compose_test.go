package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// The compose file is one, by its specification, and what packaging/test-image.sh runs
// without an engine has the users, mounts and networks that it says.
func TestComposeIsWhatIsTested(t *testing.T) {
	options, err := cli.NewProjectOptions([]string{"../../examples/compose/compose.yaml"}, cli.WithName("site"), cli.WithEnv([]string{"SECUREFILES_VERSION=1.2.3"}))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Abs("../../examples/compose")
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("../test-image.sh")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		user, image string
		mounts      []string // as the script has them
	}{
		"securefiles": {"65532:101", "securefiles:1.2.3", []string{"etc:/etc/securefiles:ro", "socket:/run/securefiles"}},
		"nginx":       {"101:101", "docker.io/library/nginx:1.30.7", []string{"nginx.conf:/etc/nginx/nginx.conf:ro", "files:/var/www/securefiles:ro", "socket:/run/securefiles:ro"}},
	} {
		s := project.Services[name]
		if s.User != want.user || s.Image != want.image || !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"}) || s.Privileged || len(s.CapAdd) > 0 {
			t.Errorf("%s is %+v", name, s)
		}
		var mounts []string
		for _, v := range s.Volumes {
			from := v.Source
			if v.Type == types.VolumeTypeBind {
				if from, err = filepath.Rel(here, v.Source); err != nil {
					t.Fatal(err)
				}
			}
			mount := from + ":" + v.Target
			if v.ReadOnly {
				mount += ":ro"
			}
			mounts = append(mounts, mount)
		}
		if !slices.Equal(mounts, want.mounts) {
			t.Errorf("%s mounts %q, want %q", name, mounts, want.mounts)
		}
		for _, line := range append(want.mounts, " "+want.user+" ") {
			if !strings.Contains(string(script), line) {
				t.Errorf("test-image.sh has no %q", line)
			}
		}
	}
	service, nginx := project.Services["securefiles"], project.Services["nginx"]
	if service.NetworkMode != "none" || len(service.Ports) > 0 || service.HealthCheck == nil || !slices.Equal(service.HealthCheck.Test, types.HealthCheckTest{"CMD", "/usr/bin/securefiles", "healthy"}) {
		t.Errorf("the service is reached by %q, %v, %+v", service.NetworkMode, service.Ports, service.HealthCheck)
	}
	if nginx.DependsOn["securefiles"].Condition != types.ServiceConditionHealthy || !slices.Equal(nginx.Tmpfs, types.StringList{"/tmp"}) || len(nginx.Ports) != 1 || nginx.Ports[0].Target != 8080 {
		t.Errorf("nginx waits for %+v, and has %v, %v", nginx.DependsOn, nginx.Tmpfs, nginx.Ports)
	}
}
