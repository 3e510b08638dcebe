//go:build !linux

package doctor

import "time"

// sinceBoot is not known: what processes are is read from Linux's /proc.
func sinceBoot() (time.Duration, bool) { return 0, false }
