package main

import (
	"fmt"
	"maps"
	"slices"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// props is a node of a schema.
type props = apiextensionsv1.JSONSchemaProps

// finish adds to a definition what the table says of its kind.
func finish(d *apiextensionsv1.CustomResourceDefinition, k *kind) error {
	if k.marked {
		return finishMarked(d, k)
	}
	d.Labels = map[string]string{"app.kubernetes.io/name": "knative-serving", "knative.dev/crd-install": "true"}
	maps.Copy(d.Labels, k.labels)
	if k.plural != "" {
		d.Name, d.Spec.Names.Plural = k.plural+"."+k.group, k.plural
	}
	d.Spec.Names.ShortNames, d.Spec.Names.Categories = k.short, k.categories
	if k.cluster {
		d.Spec.Scope = apiextensionsv1.ClusterScoped
	}
	v := &d.Spec.Versions[0]
	v.AdditionalPrinterColumns = k.columns
	root := v.Schema.OpenAPIV3Schema
	if _, ok := root.Properties["status"]; ok && !k.whole {
		v.Subresources = &apiextensionsv1.CustomResourceSubresources{Status: &apiextensionsv1.CustomResourceSubresourceStatus{}}
	}
	root.Properties["metadata"] = props{Type: "object"}
	if k.template != nil {
		if err := at(root, k.template, keepMetadata); err != nil {
			return err
		}
	}
	if k.pod != nil {
		if err := at(root, k.pod, trimPod); err != nil {
			return err
		}
	}
	if status, ok := root.Properties["status"]; ok {
		lenient(&status) // status is ours to write; a missing field is no reason to refuse it
		root.Properties["status"] = status
	}
	return nil
}

// finishMarked adds to a definition whose types carry markers what they cannot say.
func finishMarked(d *apiextensionsv1.CustomResourceDefinition, k *kind) error {
	d.Labels = map[string]string{"app.kubernetes.io/name": k.group, "app.kubernetes.io/part-of": "ebb"}
	root := d.Spec.Versions[0].Schema.OpenAPIV3Schema
	root.Properties["metadata"] = props{Type: "object"}
	if !k.job {
		return nil
	}
	return at(root, []string{"spec", "jobTargetRef"}, func(job *props) error {
		brief(job, 2)
		if err := at(job, []string{"template"}, keepMetadata); err != nil {
			return err
		}
		return at(job, []string{"template", "spec", "volumes"}, func(list *props) error {
			return at(list.Items.Schema, []string{"ephemeral", "volumeClaimTemplate"}, keepMetadata)
		})
	})
}

// at changes the node at the end of path, and puts it back all the way up: a schema holds values.
func at(node *props, path []string, change func(*props) error) error {
	if len(path) == 0 {
		return change(node)
	}
	child, ok := node.Properties[path[0]]
	if !ok {
		return fmt.Errorf("no field %s", path[0])
	}
	if err := at(&child, path[1:], change); err != nil {
		return err
	}
	node.Properties[path[0]] = child
	return nil
}

// keepMetadata lets a template carry a name, labels and annotations.
func keepMetadata(template *props) error {
	text := &apiextensionsv1.JSONSchemaPropsOrBool{Schema: &props{Type: "string"}}
	template.Properties["metadata"] = props{
		Type:                   "object",
		XPreserveUnknownFields: yes(),
		Properties: map[string]props{
			"name": {Type: "string"}, "namespace": {Type: "string"},
			"labels":      {Type: "object", AdditionalProperties: text},
			"annotations": {Type: "object", AdditionalProperties: text},
			"finalizers":  {Type: "array", Items: &apiextensionsv1.JSONSchemaPropsOrArray{Schema: &props{Type: "string"}}},
		},
	}
	return nil
}

// trimPod leaves of a pod what Serving takes.
func trimPod(pod *props) error {
	fields := maps.Clone(podFields)
	for _, name := range revisionFields {
		fields[name] = false
	}
	if err := only(pod, fields); err != nil {
		return err
	}
	brief(pod, 2)
	pod.Required = nil // a Service without containers is refused at admission, by name
	if err := at(pod, []string{"containers"}, func(list *props) error {
		list.XListMapKeys, list.XListType = nil, nil // names are given where missing, after this check
		if err := only(list.Items.Schema, containerFields); err != nil {
			return err
		}
		list.Items.Schema.Required = nil
		return trimContainer(list.Items.Schema)
	}); err != nil {
		return err
	}
	return at(pod, []string{"volumes"}, func(list *props) error {
		return only(list.Items.Schema, volumeFields)
	})
}

// trimContainer loosens what Kubernetes demands but Serving fills in.
func trimContainer(c *props) error {
	if err := at(c, []string{"ports"}, func(list *props) error {
		list.XListMapKeys, list.XListType = nil, nil
		list.Items.Schema.Required = nil
		return nil
	}); err != nil {
		return err
	}
	for _, probe := range []string{"livenessProbe", "readinessProbe", "startupProbe"} {
		for _, how := range []string{"httpGet", "tcpSocket", "grpc"} {
			if err := at(c, []string{probe, how}, func(p *props) error {
				p.Required = slices.DeleteFunc(p.Required, func(f string) bool { return f == "port" })
				return nil
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

// only drops the fields that are not listed, and opens those to be kept as they are.
func only(node *props, fields map[string]bool) error {
	for name := range fields {
		if _, ok := node.Properties[name]; !ok {
			return fmt.Errorf("no field %s", name)
		}
	}
	for name := range node.Properties {
		keep, ok := fields[name]
		switch {
		case !ok:
			delete(node.Properties, name)
		case keep:
			node.Properties[name] = open(node.Properties[name])
		}
	}
	node.Required = slices.DeleteFunc(node.Required, func(f string) bool { _, ok := fields[f]; return !ok })
	return nil
}

// open keeps a node's type and takes any content.
func open(p props) props {
	out := props{Type: p.Type, Description: p.Description}
	if p.Type == "array" {
		out.Items = &apiextensionsv1.JSONSchemaPropsOrArray{Schema: &props{Type: "object", XPreserveUnknownFields: yes()}}
		return out
	}
	out.XPreserveUnknownFields = yes()
	return out
}

// brief keeps the descriptions of so many levels: a pod's are Kubernetes' own, and as long as all
// the rest.
func brief(p *props, levels int) {
	if levels == 0 {
		p.Description = ""
	}
	for name, child := range p.Properties {
		brief(&child, max(0, levels-1))
		p.Properties[name] = child
	}
	if p.Items != nil && p.Items.Schema != nil {
		brief(p.Items.Schema, max(0, levels-1))
	}
	if p.AdditionalProperties != nil && p.AdditionalProperties.Schema != nil {
		brief(p.AdditionalProperties.Schema, 0)
	}
}

// lenient drops the required fields from a node down.
func lenient(p *props) {
	p.Required = nil
	for name, child := range p.Properties {
		lenient(&child)
		p.Properties[name] = child
	}
	if p.Items != nil && p.Items.Schema != nil {
		lenient(p.Items.Schema)
	}
}

func yes() *bool {
	b := true
	return &b
}
