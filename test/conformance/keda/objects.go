package main

// objects are in the cluster before any test runs, as in upstream's continuous integration: its
// namespace, and as much of Argo Rollouts as tests of scaling need.
const objects = `
apiVersion: v1
kind: Namespace
metadata: {name: keda}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: rollouts.argoproj.io}
spec:
  group: argoproj.io
  names: {kind: Rollout, listKind: RolloutList, plural: rollouts, singular: rollout, shortNames: [ro]}
  scope: Namespaced
  versions:
  - name: v1alpha1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
    subresources:
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.HPAReplicas, labelSelectorPath: .status.selector}
      status: {}
---
apiVersion: v1
kind: Namespace
metadata: {name: argo-rollouts}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: argo-rollouts, namespace: argo-rollouts}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: argo-rollouts}
rules:
- {apiGroups: [argoproj.io], resources: [rollouts], verbs: [get, list, watch]}
- {apiGroups: [argoproj.io], resources: [rollouts/status, rollouts/finalizers], verbs: [patch, update]}
- {apiGroups: [apps], resources: [replicasets], verbs: [get, create, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: argo-rollouts}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: argo-rollouts}
subjects:
- {kind: ServiceAccount, name: argo-rollouts, namespace: argo-rollouts}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: argo-rollouts, namespace: argo-rollouts}
spec:
  selector: {matchLabels: {app.kubernetes.io/name: argo-rollouts}}
  template:
    metadata: {labels: {app.kubernetes.io/name: argo-rollouts}}
    spec:
      serviceAccountName: argo-rollouts
      containers:
      - {name: argo-rollouts, image: "quay.io/argoproj/argo-rollouts:v1.10.0"}
`
