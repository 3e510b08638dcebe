// Mutate makes mistakes in the code that decides, one at a time, and asks whether
// the tests notice.
//
//	go run ./scripts/mutate [-sample N] [-only REGEXP] [-unexplained] [-by REGEXP] [-o FILE] [-again FILE]
//
// The mistakes are derived from the code: each comparison is turned, or moved by
// one; each condition, and each operand of && and ||, holds always or never; each
// choice of a switch is never taken; each early return, continue and break is left
// out; each bound, and each number in an operation, is one more or one less.
//
// All of them are woven into the packages at once, each asleep until the
// environment names its number, so that the tests are compiled once. What a test
// never comes to it cannot notice: each mistake is tried on those tests alone that
// come to it. A test that fails, panics or takes ten times its time has noticed.
//
// Those that need not be noticed, because nothing but time or memory changes, are
// in accepted.txt, each with its reason.
//
// It fails where one survives that has no reason, where a reason has no mistake any
// more, and, of all mistakes or a sample of them, where less than nine of ten are
// noticed.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"securefiles/scripts/mutate/active"
)

const activePath = "securefiles/scripts/mutate/active"

// A target is a package, and what of it does not decide: what reads files, speaks
// to people, writes a pattern anew for explain, tries parts for lint, counts for a gauge, measures work (but
// that it is counted) and memory, or mixes the bits of a hash, one as good as another.
type target struct {
	dir         string
	files, funs *regexp.Regexp // left out
}

func targets() []target {
	return []target{
		{"policy/internal/engine", regexp.MustCompile(`^(clauses|cut|partial|version|bucket|limit)\.go$`), regexp.MustCompile(`\.(hashByte|finish|countPatterns|[nN]amesIn)$`)},
		{"policy/internal/table", regexp.MustCompile(`^(read|meaning)\.go$`), regexp.MustCompile(`\.(QuoteField|Graph\.(Longest|Sums|backwards)|hashSymbols|Period\.(Covers|Meets)|AtOrOn)$`)},
		{"policy/internal/pattern", regexp.MustCompile(`^(problem|sample|size|language|variable|expression)\.go$`), regexp.MustCompile(
			`\.(\w*[pP]roblems|lookAt|withoutNames|alternation|metacharacter|wildDot|takesName|anyName|anchored|openEnd|\w*[cC]overs\w*|isPlain|isNamePath|\w*[sS]ample\w*|braces|[lL]iteral|regexLiteral|unmatchable|badGlobSegment|steps|NeedsMemory|NewCache|compiled\.\w+)$`)},
		{"policy/internal/model", regexp.MustCompile(`^(model|outline|path|roles|expression|probe)\.go$`), regexp.MustCompile(
			`\.(MayHoldForNothing|decidedBy|texts|source|DescribeConjunction|ParseSubrule|PeriodOf|Model\.(Written|Stock))$`)},
	}
}

// Tests of these packages are asked, but for some that take long and have more to
// say of other things.
const tested = "securefiles/policy/internal/..."

var slow = regexp.MustCompile(`^(TestCasbinExamplesDecideTheSame|TestClaimsAboutPatternsHold|TestLinesWithTheSameHash|FuzzPolicyCSV)$`)

//go:embed accepted.txt
var accepted string

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

func run() error {
	sample := flag.Int("sample", 0, "try so many, drawn at random; 0 is all")
	seed := flag.Uint64("seed", 1, "of the sample")
	only := flag.String("only", "", "try those alone whose key matches")
	again := flag.String("again", "", "try those alone that survived according to this file, which -o wrote")
	unexplained := flag.Bool("unexplained", false, "try those alone that accepted.txt does not explain")
	by := flag.String("by", "", "ask the tests of those packages alone whose directory matches")
	jobs := flag.Int("j", runtime.NumCPU(), "try so many at once")
	worlds := flag.Int("worlds", 400, "compare so many worlds with stock Casbin for each")
	list := flag.Bool("list", false, "list the mistakes")
	keep := flag.String("o", "", "write what became of each into this file")
	flag.Parse()

	reasons, err := readAccepted(accepted)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	mistakes, overlay, uncompiled, err := weaveAll(dir)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, m := range mistakes {
		known[m.key] = true
	}
	if *only != "" {
		which, err := regexp.Compile(*only)
		if err != nil {
			return err
		}
		mistakes = slices.DeleteFunc(mistakes, func(m *mistake) bool { return !which.MatchString(m.key) })
	}
	if *unexplained {
		mistakes = slices.DeleteFunc(mistakes, func(m *mistake) bool { return reasons[m.key] != "" })
	}
	if *again != "" {
		survived, err := survivors(*again)
		if err != nil {
			return err
		}
		mistakes = slices.DeleteFunc(mistakes, func(m *mistake) bool { return !survived[m.key] })
	}
	if *sample > 0 && *sample < len(mistakes) {
		random := rand.New(rand.NewPCG(*seed, 0))
		random.Shuffle(len(mistakes), func(i, j int) { mistakes[i], mistakes[j] = mistakes[j], mistakes[i] })
		mistakes = mistakes[:*sample]
		slices.SortFunc(mistakes, func(a, b *mistake) int { return a.number - b.number })
	}
	if *list {
		for _, m := range mistakes {
			fmt.Println(m.key)
		}
		return nil
	}
	t := &trial{dir: dir, environment: append(os.Environ(),
		fmt.Sprintf("RAPID_CHECKS=%d", 5**worlds), // a fifth of them under -short
		"RAPID_SEED=1", "RAPID_NOFAILFILE=1", "RAPID_SHRINKTIME=0s", "TMPDIR="+dir, "GOMEMLIMIT=1GiB",
	)}
	begin := time.Now()
	asked, err := regexp.Compile(*by)
	if err != nil {
		return err
	}
	if err := t.build(overlay, asked); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "built in %s\n", time.Since(begin).Round(time.Second))
	if err := t.measure(*jobs); err != nil {
		return err
	}
	for _, b := range t.binaries {
		for _, one := range b.tests {
			if one.took > time.Second {
				fmt.Fprintf(os.Stderr, "%s %s takes %s\n", filepath.Base(b.dir), one.name, one.took.Round(time.Millisecond))
			}
		}
	}
	fmt.Fprintf(os.Stderr, "measured after %s\n", time.Since(begin).Round(time.Second))
	var out io.Writer = io.Discard
	if *keep != "" {
		f, err := os.Create(*keep)
		if err != nil {
			return err
		}
		defer f.Close()
		out = f
	}
	killed, open := report(t.tryAll(mistakes, *jobs, out), uncompiled, reasons)
	for key := range reasons {
		if !known[key] {
			fmt.Printf("OUTDATED  accepted.txt: there is no %s\n", key)
			open++
		}
	}
	fair := *only == "" && *again == "" && !*unexplained // they are drawn from all
	return verdict(killed, len(mistakes), open, fair)
}

// goal is how many of a hundred mistakes the tests are to notice.
const goal = 90

// verdict says what is to be done, if anything is.
func verdict(killed, tried, open int, fair bool) error {
	var errs []error
	if open > 0 {
		errs = append(errs, fmt.Errorf("%d to see to: write a test that notices, or a line of accepted.txt that says why none can", open))
	}
	if fair && killed*100 < goal*tried {
		errs = append(errs, fmt.Errorf("%d of %d are noticed, and %d %% are to be: write tests", killed, tried, goal))
	}
	return errors.Join(errs...)
}

// readAccepted returns the reasons by key: one line each, a tab between.
func readAccepted(text string) (map[string]string, error) {
	reasons := map[string]string{}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		key, reason, ok := strings.Cut(line, "\t")
		if reason = strings.TrimSpace(reason); !ok || reason == "" {
			return nil, fmt.Errorf("accepted.txt: %q has no reason behind a tab", line)
		}
		if reasons[key] != "" {
			return nil, fmt.Errorf("accepted.txt: %q stands there twice", key)
		}
		reasons[key] = reason
	}
	return reasons, nil
}

// survivors are the keys of those that survived.
func survivors(file string) (map[string]bool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	keys := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Split(line, "\t"); len(fields) == 3 && fields[1] == "survived" {
			keys[fields[0]] = true
		}
	}
	return keys, nil
}

// weaveAll writes the files with their mistakes into a directory, and the overlay
// that puts them in the place of those that there are.
func weaveAll(dir string) (all []*mistake, overlay string, uncompiled int, err error) {
	exports, err := exportData()
	if err != nil {
		return nil, "", 0, err
	}
	replace := map[string]string{}
	number := 0
	for _, t := range targets() {
		p, err := loadPackage(t, exports, &number)
		if err != nil {
			return nil, "", 0, err
		}
		uncompiled += p.leaveOutWhatFails()
		for i, w := range p.weavers {
			file := filepath.Join(dir, strings.ReplaceAll(t.dir, "/", "_")+"_"+filepath.Base(p.names[i]))
			if err := os.WriteFile(file, w.weave(p.mistakes[i]), 0o600); err != nil {
				return nil, "", 0, err
			}
			replace[p.names[i]] = file
			all = append(all, p.mistakes[i]...)
		}
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return nil, "", 0, err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return all, overlay, uncompiled, os.WriteFile(overlay, text, 0o600)
}

// exportData returns the files with what packages export, by their path.
func exportData() (map[string]string, error) {
	out, err := output("go", "list", "-export", "-deps", "-f", "{{.ImportPath}}\t{{.Export}}", "securefiles/policy/...", activePath)
	if err != nil {
		return nil, err
	}
	exports := map[string]string{}
	for line := range strings.Lines(out) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), "\t")
		exports[path] = file
	}
	return exports, nil
}

// importing reads what packages export.
func importing(fset *token.FileSet, exports map[string]string) types.Importer {
	return importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		if exports[path] == "" {
			return nil, fmt.Errorf("nothing exported by %s", path)
		}
		return os.Open(exports[path])
	})
}

func output(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, stderr.String())
	}
	return string(out), nil
}

// A woven package: its files with the mistakes in each.
type woven struct {
	path     string
	imports  types.Importer
	others   map[string][]byte // files without any
	names    []string
	weavers  []*weaver
	mistakes [][]*mistake
}

func loadPackage(t target, exports map[string]string, number *int) (*woven, error) {
	fset := token.NewFileSet()
	p := &woven{
		path: "securefiles/" + t.dir, others: map[string][]byte{},
		imports: importing(fset, exports),
	}
	names, err := filepath.Glob(filepath.Join(t.dir, "*.go"))
	if err != nil {
		return nil, err
	}
	var all []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		if name, err = filepath.Abs(name); err != nil {
			return nil, err
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		file, err := parser.ParseFile(fset, name, text, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		all = append(all, file)
		if t.files.MatchString(filepath.Base(name)) {
			p.others[name] = text
			continue
		}
		p.names = append(p.names, name)
		p.weavers = append(p.weavers, &weaver{fset: fset, file: file, text: text})
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	pkg, err := (&types.Config{Importer: p.imports}).Check(p.path, fset, all, info)
	if err != nil {
		return nil, err
	}
	keys := map[string]int{}
	for _, w := range p.weavers {
		w.pkg, w.info, w.skip, w.next, w.keys = pkg, info, t.funs, number, keys
		p.mistakes = append(p.mistakes, w.derive())
	}
	return p, nil
}

// leaveOutWhatFails leaves out the mistakes that do not compile, and returns how
// many there were.
func (p *woven) leaveOutWhatFails() (count int) {
	for i := range p.mistakes {
		if p.compiles(i, p.mistakes[i]) {
			continue
		}
		p.mistakes[i] = slices.DeleteFunc(p.mistakes[i], func(m *mistake) bool {
			fails := !p.compiles(i, []*mistake{m})
			if fails {
				count++
			}
			return fails
		})
	}
	return count
}

// compiles reports whether a package compiles with these mistakes in one file.
func (p *woven) compiles(file int, mistakes []*mistake) bool {
	fset := token.NewFileSet()
	var files []*ast.File
	add := func(name string, text []byte) bool {
		f, err := parser.ParseFile(fset, name, text, parser.SkipObjectResolution)
		files = append(files, f)
		return err == nil
	}
	for name, text := range p.others {
		if !add(name, text) {
			return false
		}
	}
	for i, w := range p.weavers {
		text := w.text
		if i == file {
			text = w.weave(mistakes)
		}
		if !add(p.names[i], text) {
			return false
		}
	}
	_, err := (&types.Config{Importer: p.imports, Error: func(error) {}}).Check(p.path, fset, files, nil)
	return err == nil
}

// A trial asks tests.
type trial struct {
	dir         string
	environment []string
	binaries    []*binary
}

// A binary is the tests of one package.
type binary struct {
	dir, file string
	tests     []*test
}

// A test is one of them, how long it takes, and what it comes to.
type test struct {
	name    string
	took    time.Duration
	reaches map[int]bool // mistakes
}

// build compiles the tests of packages.
func (t *trial) build(overlay string, asked *regexp.Regexp) error {
	out, err := output("go", "list", "-f", "{{if .TestGoFiles}}{{.Dir}}{{else if .XTestGoFiles}}{{.Dir}}{{end}}", tested)
	if err != nil {
		return err
	}
	for dir := range strings.Lines(out) {
		if dir = strings.TrimSpace(dir); dir == "" || !asked.MatchString(dir) {
			continue
		}
		b := &binary{dir: dir, file: filepath.Join(t.dir, fmt.Sprintf("%d.test", len(t.binaries)))}
		if _, err := output("go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", b.file, b.dir); err != nil {
			return err
		}
		names, err := t.ask(context.Background(), b, nil, "-test.list", ".")
		if err != nil {
			return fmt.Errorf("list tests: %w\n%s", err, names)
		}
		for name := range strings.Lines(names) {
			if name = strings.TrimSpace(name); !slow.MatchString(name) && (strings.HasPrefix(name, "Test") || strings.HasPrefix(name, "Fuzz") || strings.HasPrefix(name, "Example")) {
				b.tests = append(b.tests, &test{name: name, reaches: map[int]bool{}})
			}
		}
		t.binaries = append(t.binaries, b)
	}
	return nil
}

// ask runs a binary. A mistake may take all memory there is, so there is not much.
func (t *trial) ask(ctx context.Context, b *binary, environment []string, args ...string) (out string, err error) {
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", `ulimit -v 8000000; exec "$0" "$@"`, b.file}, args...)...)
	cmd.Dir, cmd.Env = b.dir, append(slices.Clone(t.environment), environment...)
	cmd.WaitDelay = time.Second
	var both bytes.Buffer
	cmd.Stdout, cmd.Stderr = &both, &both
	err = cmd.Run()
	return both.String(), err
}

func pattern(tests []*test) string {
	var names []string
	for _, t := range tests {
		names = append(names, t.name)
	}
	return "^(" + strings.Join(names, "|") + ")$"
}

// measure runs each test alone, without a mistake.
func (t *trial) measure(jobs int) error {
	var wg sync.WaitGroup
	slots := make(chan struct{}, jobs)
	var mu sync.Mutex
	var failed []error
	for i, b := range t.binaries {
		for k, one := range b.tests {
			wg.Add(1)
			slots <- struct{}{}
			go func() {
				defer func() { <-slots; wg.Done() }()
				trace := filepath.Join(t.dir, fmt.Sprintf("%d-%d.trace", i, k))
				begin := time.Now()
				out, err := t.ask(context.Background(), b, []string{active.Trace + "=" + trace}, "-test.short", "-test.run", pattern([]*test{one}))
				one.took = time.Since(begin)
				if err == nil {
					err = one.read(trace)
				}
				if err != nil {
					mu.Lock()
					defer mu.Unlock()
					failed = append(failed, fmt.Errorf("without a mistake, %s in %s: %w\n%s", one.name, b.dir, err, out))
				}
			}()
		}
	}
	wg.Wait()
	return errors.Join(failed...)
}

func (t *test) read(trace string) error {
	f, err := os.Open(trace)
	if errors.Is(err, fs.ErrNotExist) { // it comes to no code that mistakes are woven into
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var number int
		if _, err := fmt.Sscan(s.Text(), &number); err != nil {
			return err
		}
		t.reaches[number] = true
	}
	return nil
}

// A fate is what became of a mistake.
type fate struct {
	*mistake
	reached bool
	by      string // the test that noticed; empty where none did
	took    time.Duration
}

func (t *trial) tryAll(mistakes []*mistake, jobs int, out io.Writer) []fate {
	fates := make([]fate, len(mistakes))
	var wg sync.WaitGroup
	slots := make(chan struct{}, jobs)
	begin := time.Now()
	var mu sync.Mutex
	for i, m := range mistakes {
		wg.Add(1)
		slots <- struct{}{}
		go func() {
			defer func() { <-slots; wg.Done() }()
			fates[i] = t.try(m)
			mu.Lock()
			defer mu.Unlock()
			f := fates[i]
			fmt.Fprintf(out, "%s\t%s\t%s\n", f.key, cmp.Or(f.by, "survived"), f.took.Round(time.Millisecond))
		}()
		if i%100 == 99 {
			fmt.Fprintf(os.Stderr, "%d of %d, %s\n", i+1, len(mistakes), time.Since(begin).Round(time.Second))
		}
	}
	wg.Wait()
	return fates
}

var failedTest = regexp.MustCompile(`--- FAIL: (\S+)`)

// try makes a mistake, and asks the binaries whose tests are quickest first.
func (t *trial) try(m *mistake) (f fate) {
	type question struct {
		binary *binary
		tests  []*test
		took   time.Duration
	}
	var questions []question
	for _, b := range t.binaries {
		// Those that take long by themselves, for the others tell sooner.
		quick := question{binary: b}
		for _, one := range b.tests {
			switch {
			case !one.reaches[m.number]:
			case one.took < 300*time.Millisecond:
				quick.tests, quick.took = append(quick.tests, one), quick.took+one.took
			default:
				questions = append(questions, question{b, []*test{one}, one.took})
			}
		}
		questions = append(questions, quick)
	}
	questions = slices.DeleteFunc(questions, func(q question) bool { return len(q.tests) == 0 })
	slices.SortStableFunc(questions, func(a, b question) int { return cmp.Compare(a.took, b.took) })
	f = fate{mistake: m, reached: len(questions) > 0}
	begin := time.Now()
	defer func() { f.took = time.Since(begin) }()
	for _, q := range questions {
		limit := 10*q.took + 10*time.Second
		ctx, cancel := context.WithTimeout(context.Background(), limit+5*time.Second)
		out, err := t.ask(ctx, q.binary, []string{fmt.Sprintf("%s=%d", active.Number, m.number)},
			"-test.short", "-test.failfast", "-test.timeout", limit.String(), "-test.run", pattern(q.tests))
		late := ctx.Err() != nil
		cancel()
		if err == nil {
			continue
		}
		f.by = filepath.Base(q.binary.dir) + " "
		switch names := failedTest.FindAllStringSubmatch(out, -1); {
		case late || strings.Contains(out, "panic: test timed out"):
			f.by += "takes too long"
		case len(names) > 0:
			f.by += names[len(names)-1][1]
		default:
			f.by += "fails"
		}
		return f
	}
	return f
}

// report tells of the fates, and of reasons for mistakes that were noticed. It returns
// how many were, and how many survived without a reason.
func report(fates []fate, uncompiled int, reasons map[string]string) (killed, unexplained int) {
	explained, late := 0, 0
	for _, f := range fates {
		switch reason := reasons[f.key]; {
		case f.by != "":
			killed++
			if strings.HasSuffix(f.by, "too long") {
				late++
			}
			if reason != "" {
				fmt.Printf("NOTICED   accepted.txt: %s, by %s\n", f.key, f.by)
			}
		case reason != "":
			explained++
		default:
			detail := "tests come to it"
			if !f.reached {
				detail = "no test comes to it"
			}
			fmt.Printf("SURVIVED  %s:%d %s (%s)\n", filepath.Base(f.place.Filename), f.place.Line, f.key, detail)
			unexplained++
		}
	}
	fmt.Printf("%d mistakes compile, %d more do not; %d of %d tried are noticed (%.1f %%), %d of these by taking too long; %d survive, %d of these explained\n",
		len(fates), uncompiled, killed, len(fates), 100*float64(killed)/float64(max(1, len(fates))), late, len(fates)-killed, explained)
	return killed, unexplained
}
