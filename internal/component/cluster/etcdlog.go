package cluster

import (
	_ "unsafe" // for linkname

	"go.uber.org/zap"
)

// clientLogger is the logger kube-apiserver gives its etcd clients.
//
//go:linkname clientLogger k8s.io/apiserver/pkg/storage/storagebackend/factory.etcd3ClientLogger
var clientLogger *zap.Logger
