package integration_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The symptoms of docs/troubleshooting.md, made on a machine that is set up as
// get-started says: what the client gets, and what stands in nginx's log, is what
// the page's table says.
func TestTroubleshootingByStatus(t *testing.T) {
	t.Parallel()
	text, _ := page(t, "troubleshooting.md")
	m := begin(t)
	m.follow("<!-- file: /etc/nginx/conf.d/site.conf -->\n```nginx\nserver { listen 80; access_log /var/log/nginx/downloads.log securefiles_access; include snippets/securefiles.conf; }\n```\n")
	m.mustRun(`nginx -t && systemctl reload nginx
cd /var/www/securefiles
ln -s plan.txt project/link.txt
ln -s nowhere project/dangling.txt
mkdir project/closed && echo x > project/closed/a.txt && chmod 700 project/closed
echo x > project/unreadable.txt && chmod 600 project/unreadable.txt
mkdir project/old`)
	if os.Getuid() != 0 { // nginx's workers are who the test is
		m.mustRun("chmod 000 /var/www/securefiles/project/closed /var/www/securefiles/project/unreadable.txt")
	}
	m.eventually("nginx has its log", func() bool {
		m.get("", "/downloads/public/welcome.txt")
		return m.read("logs/downloads.log") != "" // by a worker of the new configuration
	})
	for _, row := range []struct {
		name, user, path      string
		status                int
		serviceStatus, reason string
		nginx                 string // in its error log
	}{
		{"served", "bob:builder", "/downloads/project/plan.txt", 200, "204", "policy", ""},
		{"no line allows", "bob:builder", "/downloads/drafts/letter.txt", 404, "404", "default-deny", ""},
		{"a line denies", "bob:builder", "/downloads/project/hr/payslips.txt", 404, "404", "policy", ""},
		{"missing", "bob:builder", "/downloads/project/none.txt", 404, "204", "policy", ""},
		{"in upper case", "bob:builder", "/downloads/project/Plan.txt", 404, "204", "policy", ""},
		{"unreadable", "bob:builder", "/downloads/project/unreadable.txt", 404, "204", "policy", "(13: Permission denied)"},
		{"directory closed", "bob:builder", "/downloads/project/closed/a.txt", 404, "204", "policy", "(13: Permission denied)"},
		{"link", "bob:builder", "/downloads/project/link.txt", 404, "204", "policy", "(40: Too many levels of symbolic links)"},
		{"dangling", "bob:builder", "/downloads/project/dangling.txt", 404, "204", "policy", ""},
		{"a directory", "bob:builder", "/downloads/project/old", 404, "204", "policy", ""},
		{"final slash", "bob:builder", "/downloads/project/plan.txt/", 400, "400", "path", ""},
		{"directory and slash", "bob:builder", "/downloads/project/", 400, "400", "path", ""},
		{"the download itself", "bob:builder", "/downloads/", 400, "400", "path", ""},
		{"without its slash", "bob:builder", "/downloads", 404, "", "", "(2: No such file or directory)"},
		{"wrong URL", "bob:builder", "/download/project/plan.txt", 404, "", "", "(2: No such file or directory)"},
		{"inside of nginx", "bob:builder", "/protected/project/plan.txt", 404, "", "", ""},
		{"dots", "bob:builder", "/downloads/project/../project/plan.txt", 400, "400", "path", ""},
		{"post", "bob:builder", "POST /downloads/project/plan.txt", 405, "", "", ""},
		{"nobody", "", "/downloads/project/plan.txt", 401, "401", "anonymous", ""},
		{"wrong password", "bob:guess", "/downloads/project/plan.txt", 401, "401", "credentials", ""},
		{"role", "reader:x", "/downloads/project/plan.txt", 401, "401", "credentials", ""},
	} {
		before := len(m.read("logs/downloads.log"))
		errorsBefore := len(m.read("logs/error.log"))
		args := "'http://localhost" + row.path + "'"
		if path, post := strings.CutPrefix(row.path, "POST "); post {
			args = "-d x 'http://localhost" + path + "'"
		}
		if row.user != "" {
			args = "-u " + row.user + " " + args
		}
		status, _ := m.shell("curl --path-as-is -so /dev/null -w '%{http_code}' " + args)
		var logged struct {
			Reason        string
			ServiceStatus string `json:"service_status"`
		}
		// A line of what was asked before may come late.
		var line string
		m.eventually("the request is logged", func() bool {
			lines := strings.Split(strings.TrimSpace(m.read("logs/downloads.log")[before:]), "\n")
			line = lines[len(lines)-1]
			return strings.Contains(line, `"uri":"`+strings.TrimPrefix(row.path, "POST ")+`"`) && strings.HasSuffix(line, "}")
		})
		if err := json.Unmarshal([]byte(line), &logged); err != nil {
			t.Fatal(err)
		}
		if status != strconv.Itoa(row.status) || logged.ServiceStatus != row.serviceStatus || logged.Reason != row.reason {
			t.Errorf("%s: status %s, logged %+v, want %d and %q, %q", row.name, status, logged, row.status, row.serviceStatus, row.reason)
		}
		if told := m.read("logs/error.log")[errorsBefore:]; !strings.Contains(told, row.nginx) || row.nginx == "" && told != "" {
			t.Errorf("%s: nginx's error log says %q, want %q", row.name, told, row.nginx)
		}
		if row.status == 200 {
			continue
		}
		// The page says so, in the section of the status.
		_, section, _ := strings.Cut(text, fmt.Sprintf("\n## %d\n", row.status))
		section, _, _ = strings.Cut(section, "\n## ")
		var want []string
		switch row.status {
		case 400:
			want = []string{"`\"reason\":\"" + row.reason + "\"`"}
		case 401:
			want = []string{"| `" + row.reason + "` |"}
		case 404:
			cell := func(text string) string {
				if text == "" {
					return "none"
				}
				return "`" + text + "`"
			}
			want = []string{"| " + cell(row.serviceStatus) + " | " + cell(row.reason) + " |", row.nginx}
		case 405:
			want = []string{"GET or HEAD"}
		}
		for _, w := range want {
			if !strings.Contains(section, w) {
				t.Errorf("%s: the page does not say %q under %d", row.name, w, row.status)
			}
		}
	}
	// The service is stopped: nobody can tell, and the page says why.
	m.mustRun("kill $(cat ../run/securefiles.pid)")
	m.eventually("the service is down", func() bool { return m.get("", "/downloads/public/welcome.txt").status == 503 })
	_, section, _ := strings.Cut(text, "\n## 503\n")
	told := regexp.MustCompile(`connect\(\) to unix:\S+ failed (\(\d+: [^)]*\))`).FindStringSubmatch(m.read("logs/error.log"))
	if told == nil || !strings.Contains(section, told[1]) || !strings.Contains(section, "`connect() to unix:… failed ") {
		t.Errorf("nginx's error log says %q, and the page does not", told)
	}
}
