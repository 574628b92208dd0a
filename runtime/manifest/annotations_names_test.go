package manifest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/slipway-k8s/slipway/runtime/lastgood"
	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/supervisor"
)

// The annotations that others act on are the ones that a manifest may carry: a wrong value of each is refused as such, and
// none of them is unknown.
func TestAnnotationsHaveOneName(t *testing.T) {
	for _, name := range []string{lastgood.AnnotationRollback, lastgood.AnnotationReadyWithin, supervisor.AnnotationStartAfter, manifest.AnnotationRestartOnChange} {
		data := fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: a, annotations: {%s: '_'}}\nspec: {containers: [{name: c, image: i}]}\n", name)
		_, err := manifest.Parse([]byte(data), "m.yaml", "n")
		if err == nil || !strings.Contains(err.Error(), "metadata.annotations["+name+"]: Invalid value") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
