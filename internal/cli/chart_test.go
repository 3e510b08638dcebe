package cli

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The chart's nginx.conf is what is printed for the chart's configuration.
func TestTheChartsNginxIsWhatIsPrinted(t *testing.T) {
	const files = "packaging/helm/securefiles/files/"
	status, printed, stderr := command(t, "nginx", "--complete", "--container", "--config", files+"securefiles.yaml")
	if status != exitYes {
		t.Fatalf("status %d, %s", status, stderr)
	}
	held, err := os.ReadFile(files + "nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(held), printed); diff != "" {
		t.Errorf("make build && bin/securefiles nginx --complete --container --config %ssecurefiles.yaml > %[1]snginx.conf: -held +printed\n%s", files, diff)
	}
}
