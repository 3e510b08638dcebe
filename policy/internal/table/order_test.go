package table

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"securefiles/policy/internal/model"
	"securefiles/policy/internal/world"
)

// Lines come by how deep their subject stands, the deepest first; those of one depth
// in the order of the file, whatever that of the g lines is.
func TestLinesByTheDepthOfTheirSubject(t *testing.T) {
	var lines strings.Builder
	for _, name := range []string{"a", "b", "c", "d", "x", "y", "z", "w", "none"} {
		fmt.Fprintf(&lines, "p, %s, /a, read, allow\n", name)
	}
	const want = "d w c z b y a x none "
	for _, roles := range []string{
		"g, d, c\ng, c, b\ng, b, a\ng, y, x\ng, z, y\ng, w, z\n", "g, b, a\ng, c, b\ng, d, c\ng, w, z\ng, z, y\ng, y, x\n", "g, c, b\ng, w, z\ng, d, c\ng, y, x\ng, b, a\ng, z, y\n",
	} {
		tab, findings := load(t, world.Model(t, "subject"), lines.String()+roles)
		if tab == nil {
			t.Fatalf("%s: %v", roles, findings)
		}
		got := ""
		for _, s := range tab.Rows.Cols[0] {
			got += tab.Symbols.Text(s) + " "
		}
		if got != want {
			t.Errorf("%q: %s, not %s", roles, got, want)
		}
	}
	dated := strings.Replace(world.ModelText(t, "subject"), "g = _, _", "g = _, _, (_, _)", 1)
	m, err := model.Parse("dated.conf", dated)
	if err != nil {
		t.Fatal(err)
	}
	if tab, findings := load(t, m, lines.String()+"g, a, b, _, 2026-01-31\ng, a, b, 2026-03-01, _\n"); tab == nil {
		t.Errorf("a role at several times: %v", findings)
	}
	if _, findings := load(t, world.Model(t, "subject"), lines.String()+"g, a, b\ng, a, c\ng, a, d\n"); len(findings) != 1 {
		t.Errorf("of names with several roles the first is told of: %v", findings)
	}
	for _, roles := range []string{"g, a, b\ng, b, a\n", "g, a, b\ng, b, c\ng, c, a\n", "g, a, b\ng, a, c\n"} {
		if tab, findings := load(t, world.Model(t, "subject"), lines.String()+roles); tab != nil || findings[0].Rule != "role-tree" {
			t.Errorf("%q: %v", roles, findings)
		}
	}
}

// Around a moment nothing changes from the last beginning or end before it until the
// next.
func TestTimeInWhichNothingChanges(t *testing.T) {
	day := func(n int) time.Time {
		if n == 0 {
			return time.Time{}
		}
		return time.Date(2026, 6, n, 0, 0, 0, 0, time.UTC)
	}
	var none *Periods
	if none.Len() != 1 || new(Periods).Len() != 1 || none.Steady(day(1)) != (Period{}) {
		t.Error("without periods something changes")
	}
	var ps Periods
	for i, p := range [][2]int{{3, 9}, {0, 5}, {7, 0}, {0, 0}, {3, 20}} {
		id := ps.add(Period{Begin: Symbol(i), End: 90, From: day(p[0]), Until: day(p[1])})
		if (id == 0) != (p == [2]int{}) {
			t.Errorf("%v is period %d", p, id)
		}
		if got, ok := ps.Of(Symbol(i), 90); !ok || got != ps.At(id) || got.From != day(p[0]) || got.Until != day(p[1]) {
			t.Errorf("%v is %v, %t", p, got, ok)
		}
	}
	if p, ok := ps.Of(90, 0); ok || p != (Period{}) {
		t.Errorf("a period that no line has: %v", p)
	}
	if _, ok := none.Of(0, 90); ok {
		t.Error("none has one")
	}
	if ps.Len() != 5 {
		t.Errorf("%d periods", ps.Len())
	}
	for at, want := range map[int][2]int{1: {0, 3}, 3: {3, 5}, 4: {3, 5}, 5: {5, 7}, 6: {5, 7}, 8: {7, 9}, 9: {9, 20}, 20: {20, 0}, 25: {20, 0}} {
		if got := ps.Steady(day(at)); got.From != day(want[0]) || got.Until != day(want[1]) {
			t.Errorf("on day %d: from %v until %v", at, got.From, got.Until)
		}
	}
}

func TestMoments(t *testing.T) {
	if at, err := ParseMoment("2026-06-01", zone(t, "Europe/Berlin")); err != nil || at.UTC().Format(time.RFC3339) != "2026-05-31T22:00:00Z" {
		t.Errorf("a day begins elsewhere at %s, %v", at, err)
	}
	if !IsTime([]byte("9999-12-31")) {
		t.Error("the last day is no time")
	}
	for text, want := range map[string]string{
		"2026-06-01": "2026-06-01T00:00:00Z", "2026-06-01 10:00:00": "2026-06-01T10:00:00Z", "2026-06-01T10:00:00+01:00": "2026-06-01T09:00:00Z", "0001-01-01": "0001-01-01T00:00:00.000000001Z", "0001-01-01 00:00:00": "0001-01-01T00:00:00.000000001Z",
		"2026-6-01": "", "_": "", "": "", "2026-02-30": "",
	} {
		got, err := ParseMoment(text, time.UTC)
		if (err == nil) != (want != "") || err == nil && got.UTC().Format(time.RFC3339Nano) != want {
			t.Errorf("%q: %s, %v", text, got.Format(time.RFC3339Nano), err)
		}
		if err != nil && !strings.HasPrefix(err.Error(), fmt.Sprintf("%q ", text)) {
			t.Errorf("%q: %v", text, err)
		}
		if want == "" && IsTime([]byte(text)) != (text == Open) || want != "" && !IsTime([]byte(text)) {
			t.Errorf("%q is a time: %t", text, IsTime([]byte(text)))
		}
	}
}
