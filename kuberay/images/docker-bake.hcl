// The images of one release: `kuberay/images/build`, or from the project's folder
// `docker buildx bake --file kuberay/images/docker-bake.hcl vision`.

variable "REGISTRY" {
  default = "serve-app" // e.g. 123456789012.dkr.ecr.us-west-2.amazonaws.com/serve-app
}

variable "TAG" {
  default = "0.1.0"
}

// Every image has the same; requirements/*.in say it too.
variable "RAY_VERSION" {
  default = "2.60.0"
}

variable "VLLM_VERSION" {
  default = "0.29.0"
}

// ray-llm's builds are named after their CUDA.
variable "CUDA" {
  default = "cu130"
}

variable "TRITON_VERSION" {
  default = "26.08"
}

variable "UV_VERSION" {
  default = "0.13.8"
}

// Empty, or sha256:…, which a tag can't be moved away from.
variable "UV_DIGEST" {
  default = ""
}

variable "CPU_BASE_DIGEST" {
  default = ""
}

variable "HEAD_BASE_DIGEST" {
  default = ""
}

variable "VISION_BASE_DIGEST" {
  default = ""
}

variable "LLM_BASE_DIGEST" {
  default = ""
}

// Of the commit; `build` fills them in.
variable "REVISION" {
  default = "unknown"
}

variable "CREATED" {
  default = "1970-01-01T00:00:00Z"
}

// true: layers are kept in the registry, as tag `cache` of each image.
variable "CACHE" {
  default = false
}

function "cached" {
  params = [image]
  result = CACHE ? ["type=registry,ref=${REGISTRY}/${image}:cache"] : []
}

// ECR takes a cache only as an image of its own.
function "caching" {
  params = [image]
  result = CACHE ? ["type=registry,ref=${REGISTRY}/${image}:cache,mode=max,image-manifest=true,oci-mediatypes=true"] : []
}

group "default" {
  targets = ["cpu", "head", "vision", "llm"]
}

target "common" {
  context   = "."
  platforms = ["linux/amd64"]
  args = {
    UV_VERSION = UV_VERSION
    UV_DIGEST  = UV_DIGEST
    VERSION    = TAG
    REVISION   = REVISION
    CREATED    = CREATED
  }
}

target "cpu" {
  inherits   = ["common"]
  dockerfile = "kuberay/images/cpu.Dockerfile"
  tags       = ["${REGISTRY}/cpu:${TAG}"]
  args       = { BASE_DIGEST = CPU_BASE_DIGEST }
  cache-from = cached("cpu")
  cache-to   = caching("cpu")
}

target "head" {
  inherits   = ["common"]
  dockerfile = "kuberay/images/head.Dockerfile"
  tags       = ["${REGISTRY}/head:${TAG}"]
  args       = { BASE_TAG = "${RAY_VERSION}-py312", BASE_DIGEST = HEAD_BASE_DIGEST }
  cache-from = cached("head")
  cache-to   = caching("head")
}

target "vision" {
  inherits   = ["common"]
  dockerfile = "kuberay/images/vision.Dockerfile"
  tags       = ["${REGISTRY}/vision:${TAG}"]
  args       = { BASE_TAG = "${TRITON_VERSION}-py3", BASE_DIGEST = VISION_BASE_DIGEST }
  cache-from = cached("vision")
  cache-to   = caching("vision")
}

target "llm" {
  inherits   = ["common"]
  dockerfile = "kuberay/images/llm.Dockerfile"
  tags       = ["${REGISTRY}/llm:${TAG}"]
  args = {
    BASE_TAG     = "${RAY_VERSION}-py312-${CUDA}"
    BASE_DIGEST  = LLM_BASE_DIGEST
    RAY_VERSION  = RAY_VERSION
    VLLM_VERSION = VLLM_VERSION
  }
  cache-from = cached("llm")
  cache-to   = caching("llm")
}
