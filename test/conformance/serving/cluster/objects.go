package cluster

// objects are in the cluster before any suite runs, as in upstream's continuous integration.
const objects = `
apiVersion: v1
kind: Namespace
metadata: {name: serving-tests}
---
apiVersion: v1
kind: Namespace
metadata: {name: serving-tests-alt}
---
apiVersion: v1
kind: Namespace
metadata: {name: tls}
---
apiVersion: v1
kind: Namespace
metadata: {name: rq-test}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: conformance-test-configmap, namespace: serving-tests}
data: {testKey: testValue}
---
apiVersion: v1
kind: Secret
metadata: {name: conformance-test-secret, namespace: serving-tests}
stringData: {testKey: testValue}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: knative-pv-claim, namespace: serving-tests}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Gi}}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: rq-e2e-test, namespace: rq-test}
spec:
  hard: {cpu: 50m}
`
