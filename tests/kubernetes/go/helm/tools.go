//go:build tools

// What is built of Helm: its command.
package tools

import _ "helm.sh/helm/v3/cmd/helm"
