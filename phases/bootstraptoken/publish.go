package bootstraptoken

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeapi"
	"github.com/slipway-k8s/slipway/phases/kubeconfig/document"
)

// Publish has cluster-info name other authorities, as PEM, which machines trust that join from then on, and signs it with
// the tokens in the cluster that are for signing and have not ended at now. All else that it says stays, such as a server
// that somebody has put there. Where there is no cluster-info nobody joins by it, and nothing is done; nothing is either
// where all is right already. ctx needs a deadline.
func Publish(ctx context.Context, api kubeapi.API, authorities []byte, now time.Time, report func(kubeapi.Report)) error {
	if _, err := api.Get(ctx, infoRef()); errors.Is(err, kubeapi.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	tokens, err := inCluster(ctx, api)
	if err != nil {
		return err
	}
	tokens = slices.DeleteFunc(signing(tokens), func(t config.BootstrapToken) bool { return !t.Expires.IsZero() && !t.Expires.After(now) })
	// Not by Apply: a text that somebody else has set is changed in one place, and is theirs no less.
	return api.Edit(ctx, infoRef(), "the authorities that joining machines trust", func(o *unstructured.Unstructured) error {
		return republish(o, authorities, tokens)
	}, report)
}

// republish changes the ConfigMap. Signatures of other tokens are of another text, or their tokens are gone: they go.
func republish(o *unstructured.Unstructured, authorities []byte, tokens []config.BootstrapToken) error {
	data, _, err := unstructured.NestedStringMap(o.Object, "data")
	if err != nil {
		return fmt.Errorf("reading what it says: %w", err)
	}
	text, err := document.Retrust([]byte(data["kubeconfig"]), authorities)
	if err != nil {
		return fmt.Errorf("its kubeconfig: %w; remove the ConfigMap, and slipway init phase bootstrap-token makes it anew", err)
	}
	maps.DeleteFunc(data, func(key, _ string) bool { return strings.HasPrefix(key, signaturePrefix) })
	data["kubeconfig"] = string(text)
	for _, t := range tokens {
		data[signaturePrefix+t.ID] = Sign(string(text), t)
	}
	return unstructured.SetNestedStringMap(o.Object, data, "data")
}
