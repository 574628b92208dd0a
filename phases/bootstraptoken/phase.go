package bootstraptoken

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/clusteradmins"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeapi"
	"github.com/slipway-k8s/slipway/phases/kubeconfig/document"
	"github.com/slipway-k8s/slipway/phases/objects"
)

//go:embed roles.yaml
var roles string

//go:embed clusterinfo.yaml
var infoRoles string

// New returns the phase.
func New() phases.Phase {
	return phases.Phase{
		Name:  "bootstrap-token",
		Short: "Let nodes join: a token, what it may do, and where the cluster is",
		Long: "Makes the bootstrap tokens, lets their holders request a certificate as a node and have it approved, and publishes\n" +
			"where the cluster is in the ConfigMap cluster-info, signed with each token. A token that an\n" +
			"earlier run made is kept while more than half of its time is left.",
		Begin: run, BeginAfter: []string{clusteradmins.Name},
	}
}

// description is how a later run knows the token that it made.
const description = "The token that slipway init made."

func run(ctx context.Context, env *phases.Env) error {
	cluster, err := Cluster(env.Files, env.Config)
	if err != nil {
		return err
	}
	existing, err := Existing(ctx, env)
	if err != nil {
		return err
	}
	tokens := plan(env.Config, existing, env.Now())
	list, err := Plan(cluster, tokens)
	if err != nil {
		return err
	}
	if err := objects.Apply(ctx, env, list...); err != nil {
		return err
	}
	for _, t := range tokens {
		if env.Join != nil && slices.Contains(t.Usages, "authentication") {
			env.Join.Tokens = append(env.Join.Tokens, Text(t))
		}
	}
	return awaitSignatures(ctx, env, tokens)
}

// Existing returns the tokens that are in the cluster. Secrets that hold no token that could be used are passed over.
func Existing(ctx context.Context, env *phases.Env) ([]config.BootstrapToken, error) {
	ctx, cancel := objects.Within(ctx, env)
	defer cancel()
	return inCluster(ctx, env.API)
}

func inCluster(ctx context.Context, api kubeapi.API) ([]config.BootstrapToken, error) {
	secrets, err := api.List(ctx, Ref(""), Selector)
	if err != nil {
		return nil, err
	}
	var list []config.BootstrapToken
	for _, s := range secrets {
		if t, err := FromSecret(&s); err == nil {
			list = append(list, t)
		}
	}
	return list, nil
}

// plan returns the tokens to have, with their Expires: those of the configuration, or one with nothing given. A token
// that is there keeps its end while more than half of its time is left, so that a second run changes nothing.
func plan(c *config.Cluster, existing []config.BootstrapToken, now time.Time) []config.BootstrapToken {
	wanted := slices.Clone(c.BootstrapTokens)
	if len(wanted) == 0 {
		wanted = []config.BootstrapToken{{TTL: DefaultTTL, Usages: DefaultUsages(), Groups: DefaultGroups()}}
	}
	for i := range wanted {
		w := &wanted[i]
		made := w.ID == ""
		if made && w.Description == "" {
			w.Description = description
		}
		end := Expiration(*w, now)
		at := slices.IndexFunc(existing, func(t config.BootstrapToken) bool {
			same := t.ID == w.ID && t.Secret == w.Secret
			return (same || made && alike(t, *w)) && lasts(t, *w, now)
		})
		switch {
		case at >= 0:
			w.ID, w.Secret = existing[at].ID, existing[at].Secret
			if w.Expires.IsZero() {
				end = existing[at].Expires
			}
		case made:
			w.ID, w.Secret = Generate()
		}
		w.Expires = end
	}
	return wanted
}

// alike reports whether a token could be the one that an earlier run made.
func alike(t, wanted config.BootstrapToken) bool {
	sorted := func(s []string) []string { s = slices.Clone(s); slices.Sort(s); return s }
	return t.Description == wanted.Description && slices.Equal(sorted(t.Usages), sorted(wanted.Usages)) && slices.Equal(sorted(t.Groups), sorted(wanted.Groups))
}

// lasts reports whether the token that is there ends as the wanted one is to: at the time that is given for it, never, or
// when it has more than half of its time left, and not more than all.
func lasts(t, wanted config.BootstrapToken, now time.Time) bool {
	switch {
	case !wanted.Expires.IsZero():
		return t.Expires.Equal(wanted.Expires)
	case wanted.TTL == 0 || t.Expires.IsZero():
		return wanted.TTL == 0 && t.Expires.IsZero()
	}
	left := t.Expires.Sub(now)
	return left > wanted.TTL/2 && left <= wanted.TTL
}

// Plan returns all objects of the phase.
func Plan(cluster document.Cluster, tokens []config.BootstrapToken) ([]*unstructured.Unstructured, error) {
	info, err := clusterInfo(cluster, tokens)
	if err != nil {
		return nil, err
	}
	list := []*unstructured.Unstructured{info}
	for _, t := range tokens {
		list = append(list, Secret(t, t.Expires))
	}
	for _, stream := range []string{infoRoles, roles} {
		more, err := objects.Render(stream, nil)
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	return list, nil
}

// awaitSignatures returns once cluster-info is signed with every token that is for signing: before that, nobody can join.
// It is at once, unless somebody has changed what it says: then the controller manager signs that.
func awaitSignatures(ctx context.Context, env *phases.Env, tokens []config.BootstrapToken) error {
	signers := signing(tokens)
	if len(signers) == 0 {
		return nil
	}
	ctx, cancel := objects.Within(ctx, env)
	defer cancel()
	signed := func(o *unstructured.Unstructured) bool {
		return !slices.ContainsFunc(signers, func(t config.BootstrapToken) bool { return !Signed(o, t) })
	}
	if err := env.API.Await(ctx, infoRef(), "is signed with the token", signed, objects.Tell(env)); err != nil {
		return fmt.Errorf("%w\nthe signatures are made by the bootstrapsigner of kube-controller-manager, once that leads: slipway logs kube-controller-manager", err)
	}
	return nil
}
