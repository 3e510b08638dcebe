package lint

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"securefiles/policy"
	"securefiles/policy/internal/world"
)

// What the schema of SARIF 2.1.0 demands: required properties, ranges, closed
// lists of words, and indexes that point at what they say.
func TestSARIF(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a policy.csv")
	world.Write(t, file, "p, alice, /a/**, read, allow\np, josé, /é/x, read, Deny\n")
	findings := Check(t.Context(), policy.Files{Policy: file}, nil)
	world.Write(t, file, "p, josé, é/x, read, allow\np, bob, /a/x, read, allow\n")
	findings = append(findings, Check(t.Context(), policy.Files{Policy: file}, nil)...)
	findings = append(findings, policy.Finding{File: "policy/b.csv", Severity: policy.SeverityWarning, Rule: "of-somebody-else", Message: "m"})
	if len(findings) != 3 {
		t.Fatal(findings)
	}
	var buf bytes.Buffer
	if err := WriteSARIF(&buf, findings, Rules(), "1.2.3"); err != nil {
		t.Fatal(err)
	}
	var log struct {
		Schema  string `json:"$schema"`
		Version string
		Runs    []struct {
			ColumnKind string
			Tool       struct {
				Driver struct {
					Name, Version string
					Rules         []struct {
						ID                     string
						ShortDescription, Help struct{ Text string }
						DefaultConfiguration   struct{ Level string }
					}
				}
			}
			Results []struct {
				RuleID    string
				RuleIndex *int
				Level     string
				Message   struct{ Text string }
				Locations []struct {
					PhysicalLocation struct {
						ArtifactLocation struct{ URI string }
						Region           *struct{ StartLine, StartColumn int }
					}
				}
			}
		}
	}
	dec := json.NewDecoder(&buf)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&log); err != nil {
		t.Fatal(err)
	}
	if log.Version != "2.1.0" || !strings.HasSuffix(log.Schema, "sarif-2.1.0.json") || len(log.Runs) != 1 || log.Runs[0].ColumnKind != "unicodeCodePoints" {
		t.Errorf("%+v", log)
	}
	run := log.Runs[0]
	levels := map[string]bool{"warning": true, "error": true}
	if run.Tool.Driver.Name != "securefiles" || run.Tool.Driver.Version != "1.2.3" || len(run.Tool.Driver.Rules) != len(Rules()) {
		t.Errorf("%+v", run.Tool.Driver)
	}
	for _, r := range run.Tool.Driver.Rules {
		if r.ID == "" || r.ShortDescription.Text == "" || r.Help.Text == "" || !levels[r.DefaultConfiguration.Level] {
			t.Errorf("%+v", r)
		}
	}
	type region = struct{ StartLine, StartColumn int }
	for i, want := range []struct {
		rule, level, uri string
		region           *region
	}{
		{"effect", "error", "a%20policy.csv", &region{2, 22}}, // in characters, not in bytes
		{"pattern-unmatchable", "warning", "a%20policy.csv", &region{1, 10}},
		{"of-somebody-else", "warning", "policy/b.csv", nil},
	} {
		got := run.Results[i]
		place := got.Locations[0].PhysicalLocation
		if got.RuleID != want.rule || got.Level != want.level || got.Message.Text == "" || !strings.HasSuffix(place.ArtifactLocation.URI, want.uri) {
			t.Errorf("%d: %+v", i, got)
		}
		if (place.Region == nil) != (want.region == nil) || place.Region != nil && *place.Region != *want.region {
			t.Errorf("%d: region %+v, want %+v", i, place.Region, want.region)
		}
		if got.RuleIndex != nil && run.Tool.Driver.Rules[*got.RuleIndex].ID != got.RuleID {
			t.Errorf("%d: index %d is %s", i, *got.RuleIndex, run.Tool.Driver.Rules[*got.RuleIndex].ID)
		}
		if (got.RuleIndex == nil) != (got.RuleID == "of-somebody-else") {
			t.Errorf("%d: index %v", i, got.RuleIndex)
		}
	}
	if uri := run.Results[0].Locations[0].PhysicalLocation.ArtifactLocation.URI; !strings.HasPrefix(uri, "file:///") {
		t.Error(uri)
	}
}
