package limit

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"securefiles/authz"
	"securefiles/internal/state"
)

var noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// A bench is limits over a memory with a clock of its own.
type bench struct {
	t *testing.T
	*Limits
	store *state.Memory
	now   time.Time
	n     int
}

func newBench(t *testing.T, list ...Limit) *bench {
	t.Helper()
	b := &bench{t: t, now: noon}
	for i := range list {
		if list[i].Name == "" {
			list[i].Name = fmt.Sprintf("l%d", i)
		}
	}
	b.store = state.NewMemory(&state.MemoryOptions{Now: func() time.Time { return b.now }})
	var err error
	b.Limits, err = New(list, []string{"main", "other"})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// by is an outcome that policy has allowed.
func by(subject string, groups ...string) *authz.Outcome {
	p := authz.Principal{Subject: subject, Groups: append(groups, authz.GroupAnyone)}
	if subject != authz.Anonymous {
		p.Groups = append(p.Groups, authz.GroupAuthenticated)
	}
	return &authz.Outcome{
		Question:  &authz.Question{Method: "GET", Download: &authz.Download{Name: "main"}, IP: netip.MustParseAddr("192.0.2.1")},
		Principal: p,
	}
}

func byLink(id, maker string) *authz.Outcome {
	out := by(maker)
	out.Principal.Scope = &authz.Scope{ID: id}
	out.Principal.Groups = append(out.Principal.Groups, authz.GroupLink)
	return out
}

func from(ip string, out *authz.Outcome) *authz.Outcome {
	out.Question.IP = netip.MustParseAddr(ip)
	return out
}

func of(download string, out *authz.Outcome) *authz.Outcome {
	out.Question.Download = &authz.Download{Name: download}
	return out
}

// ask asks about an outcome, under an id of its own.
func (b *bench) ask(limiter authz.Limiter, out *authz.Outcome) string {
	b.t.Helper()
	if out.Question.ID == "" {
		b.n++
		out.Question.ID = fmt.Sprint(b.n)
	}
	err := limiter.Limit(b.t.Context(), out)
	var over *authz.LimitError
	switch {
	case errors.As(err, &over):
		return string(over.Reason) + " " + over.Limit
	case err != nil:
		b.t.Fatal(err)
	}
	return "ok"
}

// Whose share a request takes of: one asks until nothing is left, and then another.
func TestWhoSharesALimit(t *testing.T) {
	for _, row := range []struct {
		name         string
		limit        Limit
		one, another *authz.Outcome
		shared       bool
	}{
		{"subjects do not", Limit{Per: PerSubject}, by("alice"), by("bob"), false},
		{"a subject does from everywhere", Limit{Per: PerSubject}, by("alice"), from("192.0.2.9", by("alice")), true},
		{"and in each download", Limit{Per: PerSubject}, by("alice"), of("other", by("alice")), true},
		{"who is not known does by address", Limit{Per: PerSubject}, by("anonymous"), by("anonymous"), true},
		{"and not from another one", Limit{Per: PerSubject}, by("anonymous"), from("192.0.2.9", by("anonymous")), false},
		{"nor with a subject that is called like an address", Limit{Per: PerSubject}, by("anonymous"), by("address:192.0.2.1"), false},
		{"a link does not with its maker", Limit{Per: PerSubject}, byLink("l", "alice"), by("alice"), false},
		{"nor with another link of the maker's", Limit{Per: PerSubject}, byLink("l", "alice"), byLink("m", "alice"), false},
		{"a link does with itself", Limit{Per: PerSubject}, byLink("l", "alice"), from("192.0.2.9", byLink("l", "alice")), true},
		{"per link, the same", Limit{Per: PerLink}, byLink("l", "alice"), byLink("l", "bob"), true},
		{"per link, others are not asked", Limit{Per: PerLink}, byLink("l", "alice"), by("alice"), false},
		{"groups do", Limit{Per: PerGroup, Of: []string{"@staff"}}, by("alice", "@staff"), by("bob", "@staff"), true},
		{"other groups do not", Limit{Per: PerGroup, Of: []string{"@staff", "@sales"}}, by("alice", "@staff"), by("bob", "@sales"), false},
		{"one group of two does", Limit{Per: PerGroup}, by("alice", "@staff", "@sales"), by("bob", "@sales"), true},
		{"everybody as a group does", Limit{Per: PerGroup, Of: []string{"@anyone"}}, by("alice"), by("anonymous"), true},
		{"addresses do not", Limit{Per: PerAddress, Of: []string{"@anyone"}}, by("alice"), from("192.0.2.9", by("alice")), false},
		{"an address does, whoever asks", Limit{Per: PerAddress, Of: []string{"@anyone"}}, by("alice"), byLink("l", "bob"), true},
		{"an IPv4 address in IPv6 is the same", Limit{Per: PerAddress, Of: []string{"@anyone"}}, by("alice"), from("::ffff:192.0.2.1", by("alice")), true},
		{"a network of IPv6 does", Limit{Per: PerAddress, Of: []string{"@anyone"}}, from("2001:db8::1", by("a")), from("2001:db8::ffff:1", by("a")), true},
		{"another one does not", Limit{Per: PerAddress, Of: []string{"@anyone"}}, from("2001:db8::1", by("a")), from("2001:db8:0:1::1", by("a")), false},
		{"by configuration", Limit{Per: PerAddress, Of: []string{"@anyone"}, IPv6: 48}, from("2001:db8::1", by("a")), from("2001:db8:0:1::1", by("a")), true},
		{"a download does, whoever asks", Limit{Per: PerDownload}, by("alice"), by("bob"), true},
		{"another download does not", Limit{Per: PerDownload}, by("alice"), of("other", by("alice")), false},
		{"of a subject: others are not asked", Limit{Per: PerDownload, Of: []string{"alice"}}, by("alice"), by("bob"), false},
		{"of a subject: nor is a link of the subject's", Limit{Per: PerDownload, Of: []string{"alice"}}, by("alice"), byLink("l", "alice"), false},
		{"of a download: others are not asked", Limit{Per: PerSubject, Of: []string{"download:main"}}, by("alice"), of("other", by("alice")), false},
		{"of a link: others are not asked", Limit{Per: PerDownload, Of: []string{"link:l"}}, byLink("l", "alice"), byLink("m", "alice"), false},
		{"of all links: others are not asked", Limit{Per: PerDownload, Of: []string{"@link"}}, byLink("l", "alice"), by("alice"), false},
	} {
		row.limit.Requests = "3/1m"
		b := newBench(t, row.limit)
		for range 3 {
			row.one.Question.ID = ""
			if got := b.ask(b.Limits.Late(b.store), row.one); got != "ok" {
				t.Errorf("%s: %s", row.name, got)
			}
		}
		row.one.Question.ID = ""
		if got := b.ask(b.Limits.Late(b.store), row.one); got != "rate l0" {
			t.Errorf("%s: nothing was taken: %s", row.name, got)
		}
		want := map[bool]string{true: "rate l0", false: "ok"}[row.shared]
		row.another.Question.ID = ""
		if got := b.ask(b.Limits.Late(b.store), row.another); got != want {
			t.Errorf("%s: %s, want %s", row.name, got, want)
		}
	}
}

// Early is what is per address, for everybody or for downloads; it takes nothing later.
func TestWhatIsAskedEarly(t *testing.T) {
	for _, row := range []struct {
		limit Limit
		early bool
	}{
		{Limit{Per: PerAddress}, true},
		{Limit{Per: PerAddress, Of: []string{"download:main"}}, true},
		{Limit{Per: PerAddress, Of: []string{"@anyone"}}, false},
		{Limit{Per: PerAddress, Of: []string{"download:main", "alice"}}, false},
		{Limit{Per: PerAddress, Of: []string{"link:l"}}, false},
		{Limit{Per: PerSubject}, false},
		{Limit{Per: PerDownload}, false},
	} {
		row.limit.Requests = "2/1m"
		b := newBench(t, row.limit)
		if (b.Limits.Early(b.store) != nil) != row.early {
			t.Errorf("%+v: early %t", row.limit, b.Limits.Early(b.store) != nil)
		}
		if !row.early {
			continue
		}
		first := by("")
		for _, want := range []string{"ok", "ok", "rate l0"} {
			first.Question.ID = ""
			if got := b.ask(b.Limits.Early(b.store), first); got != want {
				t.Errorf("%+v: %s, want %s", row.limit, got, want)
			}
		}
		if got := b.ask(b.Limits.Late(b.store), by("alice")); got != "ok" {
			t.Errorf("%+v is asked twice: %s", row.limit, got)
		}
		if got := b.ask(b.Limits.Early(b.store), of("other", by(""))); got != map[bool]string{true: "rate l0", false: "ok"}[len(row.limit.Of) == 0] {
			t.Errorf("%+v, another download: %s", row.limit, got)
		}
	}
}

func TestDownloadsAtATime(t *testing.T) {
	b := newBench(t, Limit{Per: PerSubject, Downloads: 2})
	first, second, third := by("alice"), by("alice"), by("alice")
	if b.ask(b.Limits.Late(b.store), first) != "ok" || b.ask(b.Limits.Late(b.store), second) != "ok" || b.ask(b.Limits.Late(b.store), third) != "busy l0" {
		t.Error("not two at a time")
	}
	head := by("alice")
	head.Question.Method = "HEAD"
	if got := b.ask(b.Limits.Late(b.store), head); got != "ok" {
		t.Errorf("HEAD is no download: %s", got)
	}
	page := by("alice")
	page.Question.Action = authz.ActionList
	if got := b.ask(b.Limits.Late(b.store), page); got != "ok" {
		t.Errorf("a listing is no download: %s", got)
	}
	if err := b.store.Settle(t.Context(), first.Question.ID, 10); err != nil {
		t.Fatal(err)
	}
	if got := b.ask(b.Limits.Late(b.store), third); got != "ok" {
		t.Errorf("after one was delivered: %s", got)
	}
	third.Release(t.Context())
	if got := b.ask(b.Limits.Late(b.store), by("alice")); got != "ok" {
		t.Errorf("after one was given back: %s", got)
	}
}

func TestBytes(t *testing.T) {
	b := newBench(t, Limit{Per: PerSubject, Bytes: "10MiB/10s"})
	ranged := func(r string) *authz.Outcome {
		out := by("alice")
		out.Question.Range = r
		return out
	}
	big := ranged("bytes=0-8388607")
	if b.ask(b.Limits.Late(b.store), big) != "ok" || b.ask(b.Limits.Late(b.store), ranged("bytes=0-8388607")) != "quota l0" {
		t.Error("8 MiB twice out of 10")
	}
	if err := b.store.Settle(t.Context(), big.Question.ID, 1<<20); err != nil { // the rest was not sent
		t.Fatal(err)
	}
	if got := b.ask(b.Limits.Late(b.store), ranged("bytes=0-8388607")); got != "ok" {
		t.Errorf("after it was aborted: %s", got)
	}
	if got := b.ask(b.Limits.Late(b.store), by("alice")); got != "ok" {
		t.Errorf("of what is not known, a little is reserved: %s", got)
	}
	if got := b.ask(b.Limits.Late(b.store), by("alice")); got != "quota l0" {
		t.Errorf("and that counts: %s", got)
	}
}

func TestEstimate(t *testing.T) {
	for ranges, want := range map[string]int64{
		"":                          1 << 20,
		"bytes=0-":                  1 << 20,
		"bytes=5-":                  1 << 20,
		"bytes=0-0":                 1,
		"bytes=0-99":                100,
		"bytes=-500":                500,
		"bytes=0-9,20-29, 40-49":    30,
		"bytes=0-9,20-":             1 << 20,
		"bytes=9-0":                 1 << 20,
		"bytes=-":                   1 << 20,
		"bytes=":                    1 << 20,
		"bytes=a-b":                 1 << 20,
		"bytes=-0":                  1,
		"items=0-1":                 1 << 20,
		"bytes=0-99999999999999999": 1 << 20,
	} {
		if got := estimate(&authz.Question{Range: ranges}, 0); got != want {
			t.Errorf("%q: %d, want %d", ranges, got, want)
		}
	}
	if got := estimate(&authz.Question{}, 500); got != 500 {
		t.Errorf("with a rate: %d", got)
	}
	// If-Range that does not name the file as it is gets all of it.
	for ranges, want := range map[string]int64{"bytes=0-0": 1 << 20, "bytes=0-9999999": 10_000_000, "bytes=5-": 1 << 20} {
		if got := estimate(&authz.Question{Range: ranges, IfRange: `"another"`}, 0); got != want {
			t.Errorf("%q with If-Range: %d, want %d", ranges, got, want)
		}
	}
}

// The strictest rate counts, and each limit must have something left.
func TestTheStrictestWins(t *testing.T) {
	b := newBench(t,
		Limit{Per: PerSubject, Rate: "2MiB/s", Requests: "100/1m"},
		Limit{Per: PerSubject, Of: []string{"@guests"}, Rate: "500kB/s", Requests: "1/1m"},
		Limit{Per: PerSubject, Rate: "1kB/s", Observe: true},
	)
	out := by("alice")
	if got := b.ask(b.Limits.Late(b.store), out); got != "ok" || out.Rate != 2<<20 {
		t.Errorf("%s, %d", got, out.Rate)
	}
	out = by("zoe", "@guests")
	if got := b.ask(b.Limits.Late(b.store), out); got != "ok" || out.Rate != 500_000 || len(out.Quotas) != 2 || out.Quotas[1].Remaining != 0 {
		t.Errorf("%s, %d, %+v", got, out.Rate, out.Quotas)
	}
	for range 200 {
		if got := b.ask(b.Limits.Late(b.store), by("zoe", "@guests")); got != "rate l1" {
			t.Fatalf("zoe: %s", got)
		}
	}
	out = by("zoe")
	if got := b.ask(b.Limits.Late(b.store), out); got != "ok" || out.Quotas[0].Remaining != 98 {
		t.Errorf("what was refused took of another limit: %s, %+v", got, out.Quotas)
	}
}

func TestObservedLimitsRefuseNothing(t *testing.T) {
	b := newBench(t, Limit{Per: PerSubject, Requests: "1/1m", Observe: true})
	for range 3 {
		out := by("alice")
		if got := b.ask(b.Limits.Late(b.store), out); got != "ok" || len(out.Quotas) != 0 {
			t.Errorf("%s, %v", got, out.Quotas)
		}
	}
	var counted []string
	for _, c := range b.Counts() {
		counted = append(counted, fmt.Sprintf("%s %s %d", c.Limit, c.Result, c.Read()))
	}
	if got := strings.Join(counted, ", "); got != "l0 taken 1, l0 refused 0, l0 observed 2" {
		t.Errorf("counted: %s", got)
	}
}

// A store that cannot tell is no allow.
func TestStoreThatFailsIsUnavailable(t *testing.T) {
	l, err := New([]Limit{{Name: "a", Per: PerSubject, Requests: "1/1m"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var over *authz.LimitError
	if err := l.Late(failing{}).Limit(t.Context(), by("alice")); err == nil || errors.As(err, &over) {
		t.Errorf("%v", err)
	}
}

// A request that is asked about again, by an instance that has loaded other limits meanwhile,
// is one that nobody can tell of.
func TestARequestUnderOtherLimitsThanBeforeIsUnavailable(t *testing.T) {
	one := Limit{Name: "a", Per: PerSubject, Requests: "9/1m"}
	b := newBench(t, one)
	more, err := New([]Limit{one, {Name: "b", Per: PerSubject, Requests: "9/1m"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ first, then *Limits }{{b.Limits, more}, {more, b.Limits}} {
		out := by("alice")
		b.ask(row.first.Late(b.store), out)
		again := by("alice")
		again.Question.ID = out.Question.ID
		var over *authz.LimitError
		if err := row.then.Late(b.store).Limit(t.Context(), again); err == nil || errors.As(err, &over) || again.Release != nil {
			t.Errorf("%v", err)
		}
	}
}

type failing struct{}

func (failing) Reserve(context.Context, string, []state.Charge) ([]state.Quota, error) {
	return nil, errors.New("away")
}
func (failing) Settle(context.Context, string, int64) error           { return errors.New("away") }
func (failing) Release(context.Context, string, []state.Charge) error { return errors.New("away") }

func TestBadLimits(t *testing.T) {
	good := Limit{Name: "a", Per: PerSubject, Requests: "100/1m"}
	for want, change := range map[string]func(*Limit){
		`limits[0].name: "" is no name`:                            func(l *Limit) { l.Name = "" },
		`limits[0].name: "A" is no name`:                           func(l *Limit) { l.Name = "A" },
		`limits[0].per: "" is not one of`:                          func(l *Limit) { l.Per = "" },
		`limits[0].per: "user" is not one of`:                      func(l *Limit) { l.Per = "user" },
		`limits[0].requests: "100" is not an amount and a span`:    func(l *Limit) { l.Requests = "100" },
		`limits[0].requests: "0/1m" has no amount`:                 func(l *Limit) { l.Requests = "0/1m" },
		`limits[0].requests: "-1/1m" has no amount`:                func(l *Limit) { l.Requests = "-1/1m" },
		`limits[0].requests: "1/1ms" has no span of time`:          func(l *Limit) { l.Requests = "1/1ms" },
		`limits[0].requests: "1/day" has no span of time`:          func(l *Limit) { l.Requests = "1/day" },
		`limits[0].bytes: "many/24h" has no amount`:                func(l *Limit) { l.Bytes = "many/24h" },
		`limits[0].rate: "2MiB" is no rate`:                        func(l *Limit) { l.Rate = "2MiB" },
		`limits[0].rate: "2MiB/m" is no rate`:                      func(l *Limit) { l.Rate = "2MiB/m" },
		`limits[0].downloads: -1 is no number`:                     func(l *Limit) { l.Downloads = -1 },
		`limits[0].name: limits nothing`:                           func(l *Limit) { l.Requests = "" },
		`limits[0].ipv6: 8 is out of range`:                        func(l *Limit) { l.IPv6 = 8 },
		`limits[0].of: "download:none": there is no such download`: func(l *Limit) { l.Of = []string{"download:none"} },
		`limits[0].of: "role:a": a subject begins with role:`:      func(l *Limit) { l.Of = []string{"role:a"} },
		`limits[0].of: "@": a group is empty`:                      func(l *Limit) { l.Of = []string{"@"} },
	} {
		l := good
		change(&l)
		if _, err := New([]Limit{l}, []string{"main"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := New([]Limit{good, good}, nil); err == nil || !strings.Contains(err.Error(), `limits[1].name: "a" is the name of another`) {
		t.Errorf("%v", err)
	}
	good.Requests, good.Bytes = "100/1d", "1GB/30d"
	if _, err := New([]Limit{good}, nil); err != nil {
		t.Error(err)
	}
}

// Ranges that claim all there is reserve no more than the limit holds, and forget nothing
// of what was taken.
func TestHugeRangesReserveTheLimit(t *testing.T) {
	const most = "0-562949953421310"
	for _, ranges := range []string{"bytes=-562949953421311", "bytes=" + most, "bytes=" + strings.Repeat(most+",", 400) + most} {
		b := newBench(t, Limit{Per: PerSubject, Bytes: "100MiB/366d"})
		huge := func() *authz.Outcome {
			out := by("alice")
			out.Question.Range = ranges
			return out
		}
		first := huge()
		if got := b.ask(b.Limits.Late(b.store), first); got != "ok" {
			t.Errorf("first: %s", got)
		}
		for range 3 {
			if got := b.ask(b.Limits.Late(b.store), huge()); got != "quota l0" {
				t.Errorf("beside it: %s", got)
			}
		}
		if err := b.store.Settle(t.Context(), first.Question.ID, 60<<20); err != nil {
			t.Fatal(err)
		}
		if got := b.ask(b.Limits.Late(b.store), huge()); got != "quota l0" {
			t.Errorf("after 60 MiB were delivered: %s", got)
		}
		fits := by("alice")
		fits.Question.Range = "bytes=0-41943039"
		if got := b.ask(b.Limits.Late(b.store), fits); got != "ok" {
			t.Errorf("what is left: %s", got)
		}
		if got := b.ask(b.Limits.Late(b.store), by("alice")); got != "quota l0" {
			t.Errorf("and no more: %s", got)
		}
	}
}

// An archive takes its bytes and a place once its size is known, and no second request.
func TestAnArchiveTakesItsSizeWhenThatIsKnown(t *testing.T) {
	b := newBench(t, Limit{Name: "requests", Per: PerSubject, Requests: "1/1h"}, Limit{Name: "bytes", Per: PerSubject, Bytes: "100MB/24h"}, Limit{Name: "two", Per: PerSubject, Downloads: 2})
	ask := func(id string, size int64) error {
		out := by("alice")
		out.Question.ID, out.Question.Action, out.Question.Size = id, authz.ActionList, size
		return b.Late(b.store).Limit(t.Context(), out)
	}
	if err := ask("1", 0); err != nil {
		t.Fatal(err)
	}
	if err := ask("archive:1", 60_000_000); err != nil {
		t.Errorf("its size: %v", err)
	}
	var refused *authz.LimitError
	if err := ask("archive:2", 60_000_000); !errors.As(err, &refused) || refused.Reason != authz.ReasonQuota {
		t.Errorf("another one of 60 MB: %v", err)
	}
	if err := b.store.Settle(t.Context(), "archive:1", 1000); err != nil {
		t.Fatal(err)
	}
	if err := ask("archive:3", 60_000_000); err != nil {
		t.Errorf("the first was broken off after 1,000 bytes: %v", err)
	}
	if err := ask("archive:4", 1); err != nil {
		t.Errorf("a second at a time: %v", err)
	}
	if err := ask("archive:5", 1); !errors.As(err, &refused) || refused.Reason != authz.ReasonBusy {
		t.Errorf("a third at a time: %v", err)
	}
	if err := ask("2", 0); !errors.As(err, &refused) || refused.Reason != authz.ReasonRate {
		t.Errorf("another request: %v", err)
	}
}
