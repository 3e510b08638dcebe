package frontend

import (
	"strconv"
	"time"

	"securefiles/authz"
)

// rateLimit returns the values of RateLimit and RateLimit-Policy
// (draft-ietf-httpapi-ratelimit-headers-10): lists of items, each a limit by its name,
// of which r is left until all is in t seconds, of q in w seconds.
func rateLimit(quotas []authz.Quota) (left, policy string) {
	var l, p []byte
	for i, q := range quotas {
		if i > 0 {
			l, p = append(l, ", "...), append(p, ", "...)
		}
		l, p = strconv.AppendQuoteToASCII(l, q.Name), strconv.AppendQuoteToASCII(p, q.Name)
		l = strconv.AppendInt(append(l, ";r="...), q.Remaining, 10)
		p = strconv.AppendInt(append(p, ";q="...), q.Limit, 10)
		if q.Period > 0 {
			l = strconv.AppendInt(append(l, ";t="...), int64((q.Reset+time.Second-1)/time.Second), 10)
			p = strconv.AppendInt(append(p, ";w="...), max(1, int64(q.Period/time.Second)), 10)
		}
	}
	return string(l), string(p)
}
