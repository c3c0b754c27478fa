package shim

import _ "embed"

//go:embed shim_linux_amd64.gz
var program []byte
