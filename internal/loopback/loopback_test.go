package loopback

import "testing"

func TestThisMachineIsToldByAddressAndByName(t *testing.T) {
	for _, row := range []struct {
		host          string
		address, name bool
	}{
		{"127.0.0.1", true, false}, {"127.9.9.9", true, false}, {"::1", true, false},
		{"localhost", false, true}, {"LocalHost.", false, true}, {"app.localhost", false, true},
		{"", false, false}, {"0.0.0.0", false, false}, {"::", false, false}, {"192.0.2.1", false, false}, {"127.0.0.1.example.org", false, false},
		{"localhost.example.org", false, false}, {"notlocalhost", false, false}, {"[::1]", false, false},
	} {
		if IsAddress(row.host) != row.address || IsName(row.host) != row.name {
			t.Errorf("%q: address %t, name %t", row.host, IsAddress(row.host), IsName(row.host))
		}
	}
}
