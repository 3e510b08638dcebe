package identity

import (
	"slices"
	"strings"
)

// verifiedVariables are nginx's own variables that say who asks, once nginx has
// verified it: a password by auth_basic, a certificate by ssl_verify_client. The
// printed configuration sends the latter only where $ssl_client_verify is SUCCESS.
func verifiedVariables() []string {
	return []string{"remote_user", "ssl_client_s_dn", "ssl_client_s_dn_legacy", "ssl_client_fingerprint", "ssl_client_serial"}
}

// isNginxVariable reports whether nginx itself defines a variable, in a version or
// module that its index of variables names
// (https://nginx.org/en/docs/varindex.html), or the printed configuration does. One
// that neither defines is the operator's: a map, a set, or a module that they chose.
// The name has no dollar sign.
func isNginxVariable(name string) bool {
	for _, prefix := range []string{
		"http_", "arg_", "cookie_", "sent_http_", "sent_trailer_", "trailer_", "upstream_", "proxy_protocol_", "jwt_header_", "jwt_claim_", "oidc_claim_", "otel_",
		"ssl_", "geoip_", "geoip2_", "time_", "date_", "tcpinfo_", "connections_", "limit_", "secure_link", "session_log_",
		"fastcgi_", "f4f_", "slice_", "uid_", "realip_", "memcached_", "quic_", "http2_", "http3_", "acme_",
		"securefiles_", // among them $securefiles_from, which is what the client says
	} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return slices.Contains([]string{
		"ancient_browser", "args", "binary_remote_addr", "body_bytes_sent", "bytes_received", "bytes_sent", "connection",
		"connection_requests", "connection_time", "content_length", "content_type", "document_root", "document_uri", "gzip_ratio", "host",
		"hostname", "http2", "http3", "https", "invalid_referer", "is_args", "is_request_port", "jwt_payload", "modern_browser", "msec", "msie", "nginx_version",
		"pid", "pipe", "protocol", "proxy_add_x_forwarded_for", "proxy_host", "proxy_internal_body_length", "proxy_internal_chunked",
		"proxy_port", "query_string", "realpath_root", "remote_addr", "remote_port", "remote_user", "request", "request_body", "request_body_file", "request_completion",
		"request_filename", "request_id", "request_length", "request_method", "request_port", "request_time", "request_uri", "scheme", "server_addr",
		"server_name", "server_port", "server_protocol", "status", "uri",
	}, name)
}
