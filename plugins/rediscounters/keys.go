package rediscounters

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strconv"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// buckets is how many hash tags there are: a Cluster spreads them over its
// slots, and whoever looks for an epoch has as many keys to ask. It never
// changes: keys are named after it.
const buckets = 1024

// bucketOf is the bucket of a subject. All keys of one subject are in one.
func bucketOf(d quota.Digest) int {
	return int(binary.BigEndian.Uint16(d[:2])) % buckets
}

func appendDigest(b []byte, d quota.Digest) []byte {
	return base64.RawURLEncoding.AppendEncode(b, d[:])
}

// appendTag appends the beginning of all keys of a bucket: prefix:{0042}:
func appendTag(b []byte, prefix string, bucket int) []byte {
	b = append(b, prefix...)
	b = append(b, ':', '{')
	b = append(b, byte('0'+bucket/1000), byte('0'+bucket/100%10), byte('0'+bucket/10%10), byte('0'+bucket%10))
	return append(b, '}', ':')
}

// The kinds of keys behind the tag.
const (
	kindEpoch = "epoch:" // an epoch's totals, a hash
	kindMeta  = "meta"   // the epochs of the bucket, a hash
	kindUsage = "u:"     // what an account has used, a hash
	kindRates = "r:"     // a subject's rate windows, a hash by scope
	kindOnce  = "o:"     // a Once that was charged
	kindProbe = "probe"
)

// periodLetter names a period in the field of a counter.
func periodLetter(p quota.Period) byte { return p.String()[0] }

// onceDigest names a Once under its counter.
func onceDigest(k *quota.Key, once quota.Digest) quota.Digest {
	b := make([]byte, 0, 128)
	b = append(b, k.Digest[:]...)
	b = append(b, once[:]...)
	b = append(b, byte(k.Space), byte(k.Period))
	b = strconv.AppendInt(b, k.Start, 10)
	b = append(b, '|')
	b = append(b, k.Name...)
	sum := sha256.Sum256(b)
	return quota.Digest(sum[:16])
}
