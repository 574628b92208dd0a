// Package imports holds the tests that keep the order of slipway's packages: who may import whom, who may write to disk.
package imports
