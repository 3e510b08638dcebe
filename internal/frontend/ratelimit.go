package frontend

import (
	"strconv"
	"time"

	"securefiles/authz"
)

// maxInteger is the largest of structured fields (RFC 9651 section 3.3.1).
const maxInteger = 999_999_999_999_999

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
		l = strconv.AppendInt(append(l, ";r="...), min(q.Remaining, maxInteger), 10)
		p = strconv.AppendInt(append(p, ";q="...), min(q.Limit, maxInteger), 10)
		if q.Unit != "" {
			p = strconv.AppendQuoteToASCII(append(p, ";qu="...), q.Unit)
		}
		if q.Period > 0 {
			l = strconv.AppendInt(append(l, ";t="...), int64((q.Reset+time.Second-1)/time.Second), 10)
			p = strconv.AppendInt(append(p, ";w="...), max(1, int64(q.Period/time.Second)), 10)
		}
	}
	return string(l), string(p)
}
