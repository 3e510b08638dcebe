package integration_test

import (
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Over all the time that two instances on one Redis are asked for much more than there is,
// through nginx, as much is let through as the limits say: not one request more, though one
// of the two is killed and one ends meanwhile, and no less than 99 of 100.
// SECUREFILES_LIMITS_SECONDS says for how long; a short round has more of a beginning and an
// end in it.
func TestLimitsUnderLoad(t *testing.T) {
	seconds, least := 4, 0.95
	if text := os.Getenv("SECUREFILES_LIMITS_SECONDS"); text != "" {
		var err error
		if seconds, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
		least = 0.99
	} else {
		t.Parallel()
	}
	length := time.Duration(seconds) * time.Second
	s, _, _ := onRedis(t, `limits:
  - {name: guests, of: [anonymous], per: subject, requests: 240/6s}
  - {name: users, of: ["@authenticated"], per: subject, requests: 600/1m}
`)
	s.run(0, "state", "accept")
	rows := []struct {
		user          string
		limit, period float64
		allowed       atomic.Int64
		refused       atomic.Int64
	}{{user: "", limit: 240, period: 6}, {user: "alice", limit: 600, period: 60}}
	var clients sync.WaitGroup
	stop := make(chan struct{})
	begin := time.Now()
	for i := range rows {
		row := &rows[i]
		for range 6 {
			clients.Go(func() {
				client := newClient()
				defer client.CloseIdleConnections()
				for {
					select {
					case <-stop:
						return
					default:
					}
					switch r, err := s.try(client, row.user, "/downloads/public/welcome.txt"); {
					case err != nil:
						t.Error(err)
					case r.status == 200:
						row.allowed.Add(1)
					case r.status == 429:
						row.refused.Add(1)
					default:
						t.Errorf("status %d", r.status)
					}
				}
			})
		}
	}
	later := func(part time.Duration) { time.Sleep(time.Until(begin.Add(part))) } // the load is all that goes on meanwhile
	later(length / 3)
	end(s.daemon)
	s.startService()
	later(length * 2 / 3)
	if err := s.daemon.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = s.daemon.Wait() // it was told to
	s.startService()
	later(length)
	close(stop)
	clients.Wait()
	took := time.Since(begin).Seconds()
	for i := range rows {
		row := &rows[i]
		allowed := float64(row.allowed.Load())
		most := row.limit + row.limit/row.period*took
		t.Logf("%q: %.0f were let through in %.1f s, and %d refused; the limit is %.1f (%.2f%%)", row.user, allowed, took, row.refused.Load(), most, allowed/most*100)
		if allowed > most+1 || allowed < most*least {
			t.Errorf("%q: %.0f were let through, and the limit is %.1f", row.user, allowed, most)
		}
	}
}
