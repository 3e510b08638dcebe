package authz

import (
	"sync"
	"time"
)

// complaintsASecond is how many lines above debug level the log gets in a
// second: while something is down, each request would be one more.
const complaintsASecond = 10

// complaints keeps count of what the log was not told.
type complaints struct {
	mu         sync.Mutex
	since      time.Time // when this second began
	told, left int       // in this second, and since the last line
}

// tell reports whether the log is to be told now, and of how many it was not
// told before.
func (c *complaints) tell(now time.Time) (left int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if passed := now.Sub(c.since); passed < 0 || passed >= time.Second {
		c.since, c.told = now, 0
	}
	if c.told == complaintsASecond {
		c.left++
		return 0, false
	}
	c.told++
	left, c.left = c.left, 0
	return left, true
}
