package pattern

import "securefiles/pathguard"

// maxSamples bounds the paths that are made from one pattern.
const maxSamples = 24

// IsPath reports whether a text is a path that the service lets reach the policy.
func IsPath(text string) bool {
	_, err := pathguard.New(text)
	return err == nil
}
