# What `make kubernetes` needs and builds once, into .kubernetes. Go checks all sources against the go.sum of each folder.
GO := tests/kubernetes/go
K8S := $(CURDIR)/.kubernetes
KUBERNETES := v1.34.4
VERSION := k8s.io/component-base/version
FLAGS := -s -w -X $(VERSION).gitVersion=$(KUBERNETES) -X $(VERSION).gitMajor=1 -X $(VERSION).gitMinor=34 \
	-X k8s.io/client-go/pkg/version.gitVersion=$(KUBERNETES)
BUILD := CGO_ENABLED=0 go build -trimpath
COMMANDS := kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl kubeadm
OPERATOR := github.com/ray-project/kuberay/ray-operator
DEBIAN := etcd-server containerd runc containernetworking-plugins docker-registry buildah debootstrap iptables conntrack \
	iproute2 redis-server

.PHONY: kubernetes-programs
kubernetes-programs: .kubernetes/.installed $(COMMANDS:%=.kubernetes/bin/%) .kubernetes/kuberay .kubernetes/bin/coredns .kubernetes/bin/pause \
	.kubernetes/bin/helm

$(COMMANDS:%=.kubernetes/bin/%): .kubernetes/bin/%: $(GO)/kubernetes/go.sum
	@echo building $*
	@cd $(GO)/kubernetes && $(BUILD) -ldflags '$(FLAGS)' -o $(K8S)/bin/$* k8s.io/kubernetes/cmd/$*
	@touch $@

# With the operator's own CRDs and roles.
.kubernetes/kuberay: $(GO)/kuberay/go.sum
	@echo building KubeRay\'s operator
	@cd $(GO)/kuberay && $(BUILD) -ldflags '-s -w' -o $(K8S)/bin/kuberay-operator $(OPERATOR)
	@rm -rf $@ && cp -r "$$(cd $(GO)/kuberay && go list -m -f '{{.Dir}}' $(OPERATOR))/config" $@ && chmod -R u+w $@ && touch $@

.kubernetes/bin/coredns: $(GO)/dns/go.sum $(GO)/dns/main.go
	@echo building CoreDNS
	@cd $(GO)/dns && $(BUILD) -ldflags '-s -w' -o $(K8S)/bin/coredns .

.kubernetes/bin/pause: $(GO)/pause/main.go
	@cd $(GO)/pause && $(BUILD) -ldflags '-s -w' -o $(K8S)/bin/pause .

.kubernetes/bin/helm: $(GO)/helm/go.sum
	@echo building Helm
	@cd $(GO)/helm && $(BUILD) -ldflags '-s -w' -o $(K8S)/bin/helm helm.sh/helm/v3/cmd/helm

.kubernetes/.installed:
	@mkdir -p .kubernetes
	@test "$$(id -u)" = 0 || { echo "error: a cluster needs root, for namespaces and mounts" >&2; exit 1; }
	@command -v go >/dev/null || { echo "error: Go 1.26 is needed, to build Kubernetes and KubeRay's operator" >&2; exit 1; }
	@DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(DEBIAN) >.kubernetes/log 2>&1 || \
		{ tail -5 .kubernetes/log >&2; echo "error: apt-get could not install them; apt-get update may help" >&2; exit 1; }
	@touch $@
