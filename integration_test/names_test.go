package integration_test

import "testing"

// A name opens its file and no other, whatever policy says of the name itself; the
// table counts within a second of its edit, and a broken one leaves the one before.
func TestPublicNamesOfFiles(t *testing.T) {
	s := start(t, plan{
		policy: alicesPolicy + "p, bob, /latest.txt, read, allow\n",
		extra:  "downloads: [{name: main, url: /downloads/, internal: /protected/, root: /var/www/securefiles, names: names.csv}]\n",
		before: func(s *site) {
			s.write("names.csv", "/latest.txt, /project/plan.txt\n/open/, /public/\n/open-pay.txt, /project/hr/pay.txt\n/nothing.txt, /project/none.txt\n")
		},
	})
	got := s.status("alice", "/downloads/latest.txt", 200)
	if got.body != "0123456789\n" || got.header.Get("Content-Disposition") != `attachment; filename="latest.txt"; filename*=UTF-8''latest.txt` {
		t.Errorf("alice got %q as %s", got.body, got.header.Get("Content-Disposition"))
	}
	if got := s.status("", "/downloads/open/welcome.txt", 200); got.body != "welcome\n" {
		t.Errorf("below a name: %q", got.body)
	}
	s.status("bob", "/downloads/latest.txt", 404) // he may read what is called so, not what it opens
	s.status("alice", "/downloads/open-pay.txt", 404)
	s.status("alice", "/downloads/nothing.txt", 404)
	s.status("alice", "/downloads/open/..%2fproject/plan.txt", 400)
	s.status("alice", "/downloads/open/../latest.txt", 400)
	s.replace("names.csv", "/latest.txt, /public/welcome.txt\n")
	s.eventually("the new table counts", func() bool { return s.get("bob", "/downloads/latest.txt").body == "welcome\n" })
	s.status("", "/downloads/open/welcome.txt", 401)
	s.replace("names.csv", "/latest.txt, /project/hr/pay.txt\n/latest.txt\n")
	s.eventually("the broken table is told of", func() bool { return s.metric(`securefiles_reload_stale{name="names of main"}`) == "1" })
	s.status("bob", "/downloads/latest.txt", 200)
}
