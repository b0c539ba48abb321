// Says of each flow whether network policies let it through, as Kubernetes defines them: cyclonus, by the authors of
// Kubernetes' own conformance tests of network policies. From stdin {"policies": […], "flows": […]}, to stdout a list.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/mattfenwick/cyclonus/pkg/matcher"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
)

// A peer is a pod when it has a namespace, else an address outside of the cluster.
type peer struct {
	Namespace string
	Labels    map[string]string
	Address   string
}

type flow struct {
	Source, Target peer
	Port           int
	Protocol       core.Protocol
}

func main() {
	var asked struct {
		Policies []*networking.NetworkPolicy
		Flows    []flow
	}
	decoder := json.NewDecoder(os.Stdin)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&asked); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	policies := matcher.BuildNetworkPolicies(false, asked.Policies)
	passes := make([]bool, len(asked.Flows))
	for i, each := range asked.Flows {
		passes[i] = policies.IsTrafficAllowed(&matcher.Traffic{
			Source:       each.Source.understood(),
			Destination:  each.Target.understood(),
			ResolvedPort: each.Port,
			Protocol:     each.Protocol,
		}).IsAllowed()
	}
	if err := json.NewEncoder(os.Stdout).Encode(passes); err != nil {
		panic(err)
	}
}

func (p peer) understood() *matcher.TrafficPeer {
	if p.Namespace == "" {
		return &matcher.TrafficPeer{IP: p.Address}
	}
	return &matcher.TrafficPeer{IP: p.Address, Internal: &matcher.InternalPeer{
		Namespace:       p.Namespace,
		NamespaceLabels: map[string]string{"kubernetes.io/metadata.name": p.Namespace},
		PodLabels:       p.Labels,
	}}
}
