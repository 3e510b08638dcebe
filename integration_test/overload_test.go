package integration_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"securefiles/internal/freeport"
)

// atOnce is how many questions of one of nginx's workers wait at a time.
const atOnce = 512

// One worker of nginx, whose service answers nothing at the moment, has 700 requests at once.
// As many as there are places for wait, and are answered when the service goes on; the
// others have their answer before: 503 that says when to come again, or, where there is a
// second instance, its own. So 500 logins that an application takes its time for are not too many.
func TestOverload(t *testing.T) {
	const requests, path = 700, "/downloads/public/welcome.txt"
	for name, early := range map[string]int{"one instance": http.StatusServiceUnavailable, "two instances": http.StatusOK} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listen, admin := freeport.Address(t), freeport.Address(t)
			s := start(t, plan{policy: alicesPolicy, before: func(s *site) {
				services := "'" + s.service + "'"
				if early == http.StatusOK {
					services += ", '" + listen + "'"
				}
				s.write("securefiles.yaml", s.configuration(s.rooted(oneDownload))+"nginx: {service: ["+services+"]}\n")
			}, edit: func(s *site, _ string) string {
				const printed = "proxy_read_timeout      8s;"
				conf := strings.Replace(s.printedHere(), "worker_processes auto;", "worker_processes 1;", 1)
				if !strings.Contains(conf, printed) {
					s.t.Fatalf("nginx's configuration has no %s", printed)
				}
				return strings.ReplaceAll(conf, printed, "proxy_read_timeout 60s;") // a busy machine takes longer
			}})
			if early == http.StatusOK {
				conf := must(os.ReadFile(filepath.Join(s.dir, "securefiles.yaml")))
				s.write("second.yaml", strings.NewReplacer("listen: "+s.service, "listen: "+listen, s.admin, admin).Replace(string(conf)))
				second := &site{t: t, dir: s.dir, admin: admin, log: s.log, program: s.program, conf: "second.yaml"}
				second.startService()
			}
			s.status("", path, 200)

			s.signalService(syscall.SIGSTOP)
			var stopped syscall.WaitStatus // all of its threads, which takes a busy machine a moment
			if _, err := syscall.Wait4(s.daemon.Process.Pid, &stopped, syscall.WUNTRACED, nil); err != nil || !stopped.Stopped() {
				t.Fatalf("it was to stop: %v, %v", stopped, err)
			}
			client := newClient()
			defer client.CloseIdleConnections()
			var all sync.WaitGroup
			answers := make(chan string, requests)
			for range requests {
				all.Go(func() {
					r, err := s.try(client, "", path)
					answers <- fmt.Sprint(r.status, r.header.Get("Retry-After"), err)
				})
			}
			want := fmt.Sprint(early, "", nil)
			if early == http.StatusServiceUnavailable {
				want = fmt.Sprint(early, "5", nil)
			}
			for range requests - atOnce {
				if got := <-answers; got != want {
					t.Errorf("while the service answers nothing: %s, want %s", got, want)
				}
			}
			if len(answers) > 0 {
				t.Errorf("more were answered than are too many: fewer than %d waited", atOnce)
			}
			s.signalService(syscall.SIGCONT)
			all.Wait()
			close(answers)
			for got := range answers {
				if got != fmt.Sprint(200, "", nil) {
					t.Errorf("a request that waited: %s", got)
				}
			}
			s.status("", path, 200)
			if early == http.StatusServiceUnavailable { // as docs/sizing.md says
				s.eventually("nginx's log tells of each that was refused", func() bool {
					return strings.Count(s.read("logs/access.log"), `"service_status":"502"`) == requests-atOnce
				})
			}
		})
	}
}
