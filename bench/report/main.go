// Report writes the table and the charts of docs/performance.md from what bench/page.sh has
// measured: lines of fields separated by tabs, on standard input.
//
//	report docs < results.tsv
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/template"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: report DOCS < RESULTS")
		os.Exit(2)
	}
	if err := report(os.Args[1], os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

// A run is what was measured.
type run struct {
	machine, rounds, duration, latency string
	variants                           []*variant
	wanted                             []wish
}

// A wish is how many times the rate of another variant one should have at least.
type wish struct {
	variant, other string
	ratio          float64
}

// A variant is a way to guard a download.
type variant struct {
	name, what, static string // static is what it is compared with that asks nobody
	// By round: requests a second, and CPU time a request in microseconds, of what asks,
	// what is asked, and what that asks.
	rates, nginx, asked, beside []float64
	calls                       []float64 // system calls a request, of what asks and what is asked
	fixed                       float64   // requests a second at which latency was measured
	took                        []float64 // how many requests, and percentiles 50, 90, 99 and 99.9 in microseconds
}

func read(from io.Reader) (*run, error) {
	r, v := &run{}, &variant{}
	lines := bufio.NewScanner(from)
	for n := 1; lines.Scan(); n++ {
		fields := strings.Split(strings.TrimRight(lines.Text(), "\t "), "\t")
		numbers := func(texts []string) (all []float64) {
			for _, text := range texts {
				f, err := strconv.ParseFloat(text, 64)
				if err != nil {
					return nil
				}
				all = append(all, f)
			}
			return all
		}
		var into *[]float64
		switch kind := fields[0]; {
		case kind == "machine" && len(fields) == 2:
			r.machine = fields[1]
			continue
		case kind == "rounds" && len(fields) == 4:
			r.rounds, r.duration, r.latency = fields[1], fields[2], fields[3]
			continue
		case kind == "variant" && len(fields) == 4:
			v = &variant{name: fields[1], what: fields[2], static: fields[3]}
			r.variants = append(r.variants, v)
			continue
		case kind == "wanted" && len(fields) == 4 && numbers(fields[3:]) != nil:
			r.wanted = append(r.wanted, wish{fields[1], fields[2], numbers(fields[3:])[0]})
			continue
		case kind == "latency" && len(fields) == 7:
			v.fixed, into, fields = numbers(fields[1:2])[0], &v.took, fields[1:]
		default:
			into = map[string]*[]float64{"rates": &v.rates, "nginx": &v.nginx, "asked": &v.asked, "beside": &v.beside, "calls": &v.calls}[kind]
		}
		if into != nil {
			*into = numbers(fields[1:])
		}
		if into == nil || len(*into) == 0 {
			return nil, fmt.Errorf("line %d is not understood: %q", n, lines.Text())
		}
	}
	if len(r.variants) == 0 {
		return nil, errors.Join(errors.New("nothing was measured"), lines.Err())
	}
	for _, v := range r.variants {
		if len(v.rates) != len(r.variants[0].rates) || len(v.calls) != 2 || len(v.took) != 5 {
			return nil, fmt.Errorf("%s was not measured as the others", v.name)
		}
	}
	return r, lines.Err()
}

// part is the value below which a part of all lie, between two where it falls there.
func part(all []float64, p float64) float64 {
	all = slices.Sorted(slices.Values(all))
	at := p * float64(len(all)-1)
	i := int(at)
	return all[i] + (at-float64(i))*(all[min(i+1, len(all)-1)]-all[i])
}

func median(all []float64) float64 { return part(all, 0.5) }

// of is the median of the ratios of two rates in one round.
func (v *variant) of(other *variant) float64 {
	ratios := make([]float64, len(v.rates))
	for i := range v.rates {
		ratios[i] = v.rates[i] / other.rates[i]
	}
	return median(ratios)
}

// cost is the CPU time of a request: the median of all processes' together.
func (v *variant) cost() float64 {
	all := slices.Clone(v.nginx)
	for _, more := range [][]float64{v.asked, v.beside} {
		for i := range more {
			all[i] += more[i]
		}
	}
	return median(all)
}

func (r *run) named(name string) *variant {
	for _, v := range r.variants {
		if v.name == name {
			return v
		}
	}
	return nil
}

// table is the part of the page.
func (r *run) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "On %s. Medians of %s rounds of %s s, in turns, and in brackets the quarters of the rounds below and above;\nratios are medians of the ratios in one round, and static is `static-cache` where nginx keeps files open. Latency is over %s s.\n\n", r.machine, r.rounds, r.duration, r.latency)
	b.WriteString("| | | requests/s | / static | / `service` | CPU a request: web server, what it asks, what that asks (µs) | system calls a request: web server, what it asks | latency at a fixed rate: 50 %, 99 %, 99.9 % (ms) |\n|---|---|---|---|---|---|---|---|\n")
	ratio := func(v, other *variant) string {
		if other == nil {
			return ""
		}
		return fmt.Sprintf("%.2f", v.of(other))
	}
	each := func(values ...float64) string { // of the processes that there are
		for len(values) > 1 && values[len(values)-1] == 0 {
			values = values[:len(values)-1]
		}
		return strings.ReplaceAll(strings.Trim(fmt.Sprintf("%.1f", values), "[]"), " ", ", ")
	}
	for _, v := range r.variants {
		fmt.Fprintf(&b, "| `%s` | %s | %.0f (%.0f to %.0f) | %s | %s | %s | %s | %.2f, %.2f, %.2f at %.0f/s |\n", v.name, v.what,
			median(v.rates), part(v.rates, 0.25), part(v.rates, 0.75), ratio(v, r.named(v.static)), ratio(v, r.named("service")),
			each(median(v.nginx), median(v.asked), median(v.beside)), each(v.calls...), v.took[1]/1000, v.took[3]/1000, v.took[4]/1000, v.fixed)
	}
	b.WriteString("\n")
	for _, w := range r.wanted {
		if v, other := r.named(w.variant), r.named(w.other); v != nil && other != nil {
			fmt.Fprintf(&b, "- `%s` / `%s`: %.2f (wanted: %.2f); by CPU time %.2f\n", w.variant, w.other, v.of(other), w.ratio, other.cost()/v.cost())
		}
	}
	b.WriteString("\n![requests a second](performance-rate.svg)\n\n![latency at a fixed rate](performance-latency.svg)\n")
	return b.String()
}

// A bar is a row of a chart: its value, and from where to where a line goes over it.
type bar struct {
	Name            string
	Value, From, To float64
	Note            string
}

// chart is an SVG of bars, which reads on light and dark pages.
var chart = template.Must(template.New("").Parse(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {{.Height}}" role="img" font-family="sans-serif" font-size="13">
<title>{{.Title}}</title>
<style>text{fill:#222}.b{fill:#5b8fd6}.l{stroke:#222}@media(prefers-color-scheme:dark){text{fill:#ddd}.b{fill:#4777b8}.l{stroke:#ddd}}</style>
<text x="10" y="20" font-weight="bold">{{.Title}}</text>
{{range .Bars}}<text x="90" y="{{.Y}}" text-anchor="end">{{.Name}}</text><rect class="b" x="100" y="{{.Top}}" width="{{printf "%.1f" .Width}}" height="14"/><line class="l" x1="{{printf "%.1f" .Left}}" x2="{{printf "%.1f" .Right}}" y1="{{.Middle}}" y2="{{.Middle}}"/><text x="{{printf "%.1f" .End}}" y="{{.Y}}">{{.Note}}</text>
{{end}}</svg>
`))

func draw(title string, bars []bar) (string, error) {
	type row struct {
		bar
		Y, Top, Middle          int
		Width, Left, Right, End float64
	}
	most := 0.0
	for _, b := range bars {
		most = max(most, b.Value, b.To)
	}
	var rows []row
	for i, b := range bars {
		x := func(value float64) float64 { return 100 + 480*value/most }
		rows = append(rows, row{b, 48 + 22*i, 37 + 22*i, 44 + 22*i, x(b.Value) - 100, x(b.From), x(b.To), x(max(b.Value, b.To)) + 6})
	}
	var out strings.Builder
	err := chart.Execute(&out, map[string]any{"Title": title, "Height": 50 + 22*len(bars), "Bars": rows})
	return out.String(), err
}

const begin, end = "<!-- bench/page.sh: begin -->\n", "<!-- bench/page.sh: end -->\n"

func report(docs string, from io.Reader) error {
	r, err := read(from)
	if err != nil {
		return err
	}
	file := filepath.Join(docs, "performance.md")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s does not say where: it lacks %q or %q", file, begin, end)
	}
	var rates, latencies []bar
	for _, v := range r.variants {
		rates = append(rates, bar{v.name, median(v.rates), part(v.rates, 0.25), part(v.rates, 0.75), fmt.Sprintf("%.0f", median(v.rates))})
		latencies = append(latencies, bar{v.name, v.took[1] / 1000, v.took[1] / 1000, v.took[3] / 1000, fmt.Sprintf("%.2f, %.2f at %.0f/s", v.took[1]/1000, v.took[3]/1000, v.fixed)})
	}
	rate, err := draw("Requests a second: median, and the middle half of the rounds", rates)
	latency, err2 := draw("Latency in ms: the 50th percentile, and by a line the 99th", latencies)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(docs, "performance-rate.svg"), []byte(rate), 0o644),
		os.WriteFile(filepath.Join(docs, "performance-latency.svg"), []byte(latency), 0o644),
		os.WriteFile(file, []byte(before+begin+r.table()+end+after), 0o644))
}
