//go:build tools

package engine

import _ "github.com/inngest/inngest/cmd"
