package cli

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"securefiles/internal/config"
)

func TestLoggerHonoursFormatAndLevel(t *testing.T) {
	var buf bytes.Buffer
	newLogger(&buf, config.Log{Format: "json", Level: "warn"}, new(slog.LevelVar)).Info("hidden")
	newLogger(&buf, config.Log{Format: "json", Level: "warn"}, new(slog.LevelVar)).Warn("shown")
	newLogger(&buf, config.Log{Format: "text", Level: "info"}, new(slog.LevelVar)).Info("text")
	if got := buf.String(); strings.Contains(got, "hidden") || !strings.Contains(got, `"msg":"shown"`) || !strings.Contains(got, "msg=text") {
		t.Errorf("logged %s", got)
	}
}
