package config

import (
	"net/url"
	"slices"
)

// etcd settles where the cluster's data is kept: on this node, unless the file names an external etcd.
func (b *builder) etcd() {
	local, external := b.docs.cluster.Etcd.Local, b.docs.cluster.Etcd.External
	if local != nil && external != nil {
		b.problemf("etcd.external", "etcd.local is set too; keep the one that is meant")
		return
	}
	if external != nil {
		b.out.Etcd.External = b.externalEtcd(*external)
		return
	}
	if local == nil {
		local = &localEtcd{}
	}
	b.out.Etcd.Local = &LocalEtcd{
		DataDir:        withDefault(b.absolute("etcd.local.dataDir", local.DataDir), b.out.Paths.EtcdData),
		ExtraArgs:      b.args("etcd.local.extraArgs", local.ExtraArgs),
		ExtraEnvs:      b.envs("etcd.local.extraEnvs", local.ExtraEnvs),
		ServerCertSANs: b.altNames("etcd.local.serverCertSANs", local.ServerCertSANs),
		PeerCertSANs:   b.altNames("etcd.local.peerCertSANs", local.PeerCertSANs),
	}
}

func (b *builder) externalEtcd(e externalEtcd) *ExternalEtcd {
	const field = "etcd.external"
	out := &ExternalEtcd{
		Endpoints:     slices.Clone(e.Endpoints),
		HTTPEndpoints: slices.Clone(e.HTTPEndpoints),
		CAFile:        b.absolute(field+".caFile", e.CAFile),
		CertFile:      b.absolute(field+".certFile", e.CertFile),
		KeyFile:       b.absolute(field+".keyFile", e.KeyFile),
	}
	switch {
	case (e.CertFile == "") != (e.KeyFile == ""):
		b.problemf(field, "certFile and keyFile belong together; set both or none")
	case e.CertFile != "" && e.CAFile == "":
		b.problemf(field, "caFile is missing; certFile and keyFile need it")
	}
	if len(e.Endpoints) == 0 {
		b.problemf(field+".endpoints", "no endpoint is given; write at least one, such as https://10.0.0.1:2379")
	}
	// Plain HTTP only where no file for TLS is named, as kubeadm.
	tls := e.CAFile != "" || e.CertFile != "" || e.KeyFile != ""
	b.urls(field+".endpoints", e.Endpoints, tls)
	b.urls(field+".httpEndpoints", e.HTTPEndpoints, false)
	if len(out.HTTPEndpoints) == 0 {
		out.HTTPEndpoints = slices.Clone(out.Endpoints)
	}
	return out
}

func (b *builder) urls(field string, urls []string, wantTLS bool) {
	for i, s := range urls {
		u, err := url.Parse(s)
		switch {
		case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
			b.problemf(element(field, i), "%q is not a URL such as https://10.0.0.1:2379", s)
		case wantTLS && u.Scheme != "https":
			b.problemf(element(field, i), "%q: wanted https, since files for TLS are given", s)
		}
	}
}
