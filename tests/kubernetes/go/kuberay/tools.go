//go:build tools

// What is built of KubeRay: its operator.
package tools

import _ "github.com/ray-project/kuberay/ray-operator"
