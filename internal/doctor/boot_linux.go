package doctor

import (
	"time"

	"golang.org/x/sys/unix"
)

// sinceBoot is how long this machine has been up, asleep or not.
func sinceBoot() (time.Duration, bool) {
	var boot unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot)
	return time.Duration(boot.Nano()), err == nil
}
