package cli

import (
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var updateChart = flag.Bool("update-chart", false, "write the chart's nginx.conf")

// The chart's nginx.conf is what is printed for the chart's configuration.
func TestTheChartsNginxIsWhatIsPrinted(t *testing.T) {
	const files = "packaging/helm/securefiles/files/"
	status, printed, stderr := command(t, "nginx", "--complete", "--container", "--config", files+"securefiles.yaml")
	if status != exitYes {
		t.Fatalf("status %d, %s", status, stderr)
	}
	if *updateChart {
		if err := os.WriteFile(files+"nginx.conf", []byte(printed), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	held, err := os.ReadFile(files + "nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(held), printed); diff != "" {
		t.Errorf("write it with go test ./internal/cli -run Chart -update-chart: -held +printed\n%s", diff)
	}
}
