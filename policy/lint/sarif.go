package lint

import (
	"encoding/json"
	"io"
	"net/url"
	"path/filepath"

	"securefiles/policy"
)

// WriteSARIF writes findings in the Static Analysis Results Interchange Format,
// version 2.1.0 (OASIS, 27 March 2020), which code hosts show beside the lines.
// The rules are those that the findings may have; version is the program's.
// File names are written as they are where they are relative, which code hosts
// take to be from the top of the repository.
func WriteSARIF(w io.Writer, findings []policy.Finding, rules []Rule, version string) error {
	index := map[string]int{}
	driver := sarifDriver{Name: "securefiles", Version: version, Rules: []sarifRule{}}
	for i, r := range rules {
		index[r.ID] = i
		driver.Rules = append(driver.Rules, sarifRule{
			ID: r.ID, Short: sarifText{r.Summary}, Help: sarifText{r.Remedy}, Default: sarifLevel{r.Severity.String()},
		})
	}
	run := sarifRun{Tool: sarifTool{driver}, ColumnKind: "unicodeCodePoints", Results: []sarifResult{}}
	for _, f := range findings {
		result := sarifResult{Rule: f.Rule, Level: f.Severity.String(), Message: sarifText{f.Message}}
		if i, ok := index[f.Rule]; ok {
			result.Index = &i
		}
		place := sarifPlace{Artifact: sarifArtifact{fileURI(f.File)}}
		if f.Line > 0 {
			place.Region = &sarifRegion{f.Line, f.Character}
		}
		if f.File != "" {
			result.Locations = []sarifLocation{{place}}
		}
		run.Results = append(run.Results, result)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(sarifLog{Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run}})
}

// fileURI writes a file's name as an RFC 3986 reference.
func fileURI(name string) string {
	name = filepath.ToSlash(name)
	u := url.URL{Path: name}
	if filepath.IsAbs(name) {
		u.Scheme = "file"
	}
	return u.String()
}

type sarifLog struct {
	Schema  string     `json:"$schema"`
	Version string     `json:"version"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct {
	Tool       sarifTool     `json:"tool"`
	ColumnKind string        `json:"columnKind"`
	Results    []sarifResult `json:"results"`
}

type sarifTool struct {
	Driver sarifDriver `json:"driver"`
}

type sarifDriver struct {
	Name    string      `json:"name"`
	Version string      `json:"version"`
	Rules   []sarifRule `json:"rules"`
}

type sarifRule struct {
	ID      string     `json:"id"`
	Short   sarifText  `json:"shortDescription"`
	Help    sarifText  `json:"help"`
	Default sarifLevel `json:"defaultConfiguration"`
}

type sarifLevel struct {
	Level string `json:"level"`
}

type sarifText struct {
	Text string `json:"text"`
}

type sarifResult struct {
	Rule      string          `json:"ruleId"`
	Index     *int            `json:"ruleIndex,omitempty"`
	Level     string          `json:"level"`
	Message   sarifText       `json:"message"`
	Locations []sarifLocation `json:"locations,omitempty"`
}

type sarifLocation struct {
	Physical sarifPlace `json:"physicalLocation"`
}

type sarifPlace struct {
	Artifact sarifArtifact `json:"artifactLocation"`
	Region   *sarifRegion  `json:"region,omitempty"`
}

type sarifArtifact struct {
	URI string `json:"uri"`
}

type sarifRegion struct {
	Line   int `json:"startLine"`
	Column int `json:"startColumn,omitempty"`
}
