package policytest

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"

	"securefiles/internal/terminal"
)

// The XML that JUnit's consumers read: GitHub, GitLab, Jenkins.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Time     string      `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		File    string        `xml:"file,attr"`
		Line    int           `xml:"line,attr"`
		Time    string        `xml:"time,attr"`
		Failure *junitFailure `xml:"failure"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
		Text    string `xml:",chardata"`
	}
)

// WriteJUnit prints the XML of JUnit.
func (r *Report) WriteJUnit(w io.Writer) error {
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.6f", d.Seconds()) }
	out := junitSuites{Tests: r.Passed + r.Failed, Failures: r.Failed}
	for _, s := range r.Suites {
		suite := junitSuite{Name: s.File, Tests: len(s.Cases), Failures: s.Failed, Time: seconds(s.took)}
		for _, c := range s.Cases {
			one := junitCase{Class: s.File, Name: fmt.Sprintf("line %d: %s", c.Line, c.Name), File: s.File, Line: c.Line, Time: seconds(c.took)}
			if !c.Passed {
				one.Failure = &junitFailure{Message: c.Problem, Type: "policy", Text: c.Detail}
			}
			suite.Cases = append(suite.Cases, one)
		}
		out.Suites = append(out.Suites, suite)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(out); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// WriteTAP prints the Test Anything Protocol, version 13.
func (r *Report) WriteTAP(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "TAP version 13\n1..%d\n", r.Passed+r.Failed)
	escape := strings.NewReplacer(`\`, `\\`, "#", `\#`)
	n := 0
	for _, s := range r.Suites {
		for _, c := range s.Cases {
			n++
			word := "ok"
			if !c.Passed {
				word = "not ok"
			}
			fmt.Fprintf(&b, "%s %d - %s\n", word, n, escape.Replace(terminal.Printable(fmt.Sprintf("%s:%d: %s", s.File, c.Line, c.Name))))
			if !c.Passed {
				b.WriteString("  ---\n")
				for _, field := range [][2]string{{"message", c.Problem}, {"wanted", c.Want}, {"found", c.Got}, {"detail", c.Detail}} {
					value, err := json.Marshal(field[1]) // a JSON string is YAML too
					if err != nil {
						return err
					}
					fmt.Fprintf(&b, "  %s: %s\n", field[0], value)
				}
				b.WriteString("  ...\n")
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
