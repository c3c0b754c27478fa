package shim

import _ "embed"

//go:embed shim_linux_arm64.gz
var program []byte
