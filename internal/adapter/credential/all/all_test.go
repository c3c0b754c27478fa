package all

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"ebb.dev/ebb/internal/adapter/credential/vault"
)

func TestSafesAreInKEDAsOrder(t *testing.T) {
	known, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range known.Safes {
		names = append(names, s.Name())
	}
	if diff := cmp.Diff([]string{"hashiCorpVault", "azureKeyVault", "gcpSecretManager", "awsSecretManager"}, names); diff != "" {
		t.Error(diff)
	}
	if known.AzureToken == nil {
		t.Error("Azure gives no tokens")
	}
	if _, err := New(Options{VaultFilter: vault.Filter{Mode: "maybe"}}); err == nil {
		t.Error("a filter that cannot be is accepted")
	}
}
