package limit

import "testing"

func TestLimitsThatNeverApply(t *testing.T) {
	all := Known{Sources: true, Groups: true, Links: true}
	users := Known{Sources: true, Subject: func(name string) bool { return name == "alice" }}
	a := Limit{Name: "a", Per: PerSubject, Requests: "10/1m", Downloads: 4}
	for _, row := range []struct {
		name  string
		known Known
		list  []Limit
		want  string // the option of the last one; empty for none
	}{
		{"everybody", Known{}, []Limit{a}, ""},
		{"per link with links", all, []Limit{{Per: PerLink, Rate: "1MB/s"}}, ""},
		{"per link without", users, []Limit{{Per: PerLink, Rate: "1MB/s"}}, "per"},
		{"of links without", users, []Limit{{Per: PerDownload, Of: []string{"@link", "link:x"}, Rate: "1MB/s"}}, "of"},
		{"of links, and of somebody", users, []Limit{{Per: PerDownload, Of: []string{"@link", "alice"}, Rate: "1MB/s"}}, ""},
		{"per group without groups", users, []Limit{{Per: PerGroup, Rate: "1MB/s"}}, "per"},
		{"per group of everybody", users, []Limit{{Per: PerGroup, Of: []string{"@anyone"}, Rate: "1MB/s"}}, ""},
		{"of a group that no source gives", users, []Limit{{Per: PerSubject, Of: []string{"@staff"}, Rate: "1MB/s"}}, "of"},
		{"of a group", all, []Limit{{Per: PerSubject, Of: []string{"@staff"}, Rate: "1MB/s"}}, ""},
		{"of the known", Known{}, []Limit{{Per: PerSubject, Of: []string{"@authenticated"}, Rate: "1MB/s"}}, "of"},
		{"of a subject that no source knows", users, []Limit{{Per: PerSubject, Of: []string{"bob"}, Rate: "1MB/s"}}, "of"},
		{"of one that a source knows", users, []Limit{{Per: PerSubject, Of: []string{"bob", "alice"}, Rate: "1MB/s"}}, ""},
		{"of whom a source may know", all, []Limit{{Per: PerSubject, Of: []string{"bob"}, Rate: "1MB/s"}}, ""},
		{"of who is not known", users, []Limit{{Per: PerSubject, Of: []string{"anonymous"}, Rate: "1MB/s"}}, ""},
		{"of a download", Known{}, []Limit{{Per: PerSubject, Of: []string{"download:main"}, Rate: "1MB/s"}}, ""},
		{"a stricter one", all, []Limit{a, {Per: PerSubject, Requests: "20/1m"}}, "name"},
		{"a stricter one, of fewer", all, []Limit{{Name: "a", Per: PerSubject, Of: []string{"@staff"}, Requests: "10/1m"}, {Per: PerSubject, Requests: "20/1m"}}, ""},
		{"a stricter one of all", all, []Limit{a, {Per: PerSubject, Of: []string{"@staff"}, Requests: "20/1m", Downloads: 4}}, "name"},
		{"stricter in one thing alone", all, []Limit{a, {Per: PerSubject, Requests: "20/1m", Downloads: 3}}, ""},
		{"a thing that the other has not", all, []Limit{a, {Per: PerSubject, Requests: "20/1m", Rate: "1MB/s"}}, ""},
		{"shared by others", all, []Limit{a, {Per: PerAddress, Requests: "20/1m"}}, ""},
		{"in another time", all, []Limit{a, {Per: PerSubject, Requests: "20/1h"}}, ""},
		{"observed ones hide nothing", all, []Limit{{Name: "a", Per: PerSubject, Requests: "10/1m", Observe: true}, {Per: PerSubject, Requests: "20/1m"}}, ""},
		{"the same twice", all, []Limit{a, {Per: PerSubject, Requests: "10/1m", Downloads: 4}}, "name"},
	} {
		last := len(row.list) - 1
		if row.list[last].Name == "" {
			row.list[last].Name = "last"
		}
		l, err := New(row.list, []string{"main"})
		if err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		got := ""
		found := l.Never(row.known)
		for _, f := range found {
			if f.Index == last {
				got = f.Option
			}
		}
		if got != row.want || len(found) > 1 {
			t.Errorf("%s: %q of %v, want %q", row.name, got, found, row.want)
		}
	}
}
