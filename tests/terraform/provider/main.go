// A Terraform provider that is only a schema: it tells Terraform which arguments the real one has, and can do nothing.
//
// Terraform then checks a configuration as far as the schema goes, and evaluates it against mocks. The schema is
// schema.json beside the program; tests/terraform/provider_schema.py writes it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/terraform-plugin-go/tfprotov5"
	"github.com/hashicorp/terraform-plugin-go/tfprotov5/tf5server"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

type attribute struct {
	Type     json.RawMessage
	Required bool
	Optional bool
	Computed bool
}

type nestedBlock struct {
	Nesting string // list, set or single
	Min     int64
	Max     int64
	Block   block
}

type block struct {
	Attributes map[string]attribute
	Blocks     map[string]nestedBlock
}

type schemas struct {
	Provider    block
	Resources   map[string]block
	DataSources map[string]block `json:"data_sources"`
}

var nestings = map[string]tfprotov5.SchemaNestedBlockNestingMode{
	"list":   tfprotov5.SchemaNestedBlockNestingModeList,
	"set":    tfprotov5.SchemaNestedBlockNestingModeSet,
	"single": tfprotov5.SchemaNestedBlockNestingModeSingle,
}

var errNothingBehind = errors.New("this provider is a schema with nothing behind it: use mock_provider")

func main() {
	program, err := os.Executable()
	if err != nil {
		fail(err)
	}
	text, err := os.ReadFile(filepath.Join(filepath.Dir(program), "schema.json"))
	if err != nil {
		fail(err)
	}
	var read schemas
	if err := json.Unmarshal(text, &read); err != nil {
		fail(err)
	}
	served, err := answer(read)
	if err != nil {
		fail(err)
	}
	err = tf5server.Serve("registry.terraform.io/hashicorp/google", func() tfprotov5.ProviderServer {
		return &provider{schemas: served}
	})
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func answer(read schemas) (*tfprotov5.GetProviderSchemaResponse, error) {
	response := &tfprotov5.GetProviderSchemaResponse{
		ServerCapabilities: &tfprotov5.ServerCapabilities{},
		ResourceSchemas:    map[string]*tfprotov5.Schema{},
		DataSourceSchemas:  map[string]*tfprotov5.Schema{},
	}
	top, err := convert(read.Provider)
	if err != nil {
		return nil, err
	}
	response.Provider = &tfprotov5.Schema{Block: top}
	for _, kind := range []struct {
		from map[string]block
		to   map[string]*tfprotov5.Schema
	}{{read.Resources, response.ResourceSchemas}, {read.DataSources, response.DataSourceSchemas}} {
		for name, found := range kind.from {
			converted, err := convert(found)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			kind.to[name] = &tfprotov5.Schema{Block: converted}
		}
	}
	return response, nil
}

func convert(from block) (*tfprotov5.SchemaBlock, error) {
	to := &tfprotov5.SchemaBlock{}
	for name, a := range from.Attributes {
		//nolint:staticcheck // the only way from JSON to a type that the library has
		kind, err := tftypes.ParseJSONType(a.Type)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		to.Attributes = append(to.Attributes, &tfprotov5.SchemaAttribute{
			Name: name, Type: kind, Required: a.Required, Optional: a.Optional, Computed: a.Computed,
		})
	}
	for name, b := range from.Blocks {
		inner, err := convert(b.Block)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		to.BlockTypes = append(to.BlockTypes, &tfprotov5.SchemaNestedBlock{
			TypeName: name, Block: inner, Nesting: nestings[b.Nesting], MinItems: b.Min, MaxItems: b.Max,
		})
	}
	return to, nil
}

// provider answers what validating and mocking ask. What it does not define, the nil interface would panic on; those
// calls come only when somebody plans without mocks.
type provider struct {
	tfprotov5.ProviderServer
	schemas *tfprotov5.GetProviderSchemaResponse
}

func (p *provider) GetMetadata(
	context.Context, *tfprotov5.GetMetadataRequest,
) (*tfprotov5.GetMetadataResponse, error) {
	response := &tfprotov5.GetMetadataResponse{ServerCapabilities: &tfprotov5.ServerCapabilities{}}
	for name := range p.schemas.ResourceSchemas {
		response.Resources = append(response.Resources, tfprotov5.ResourceMetadata{TypeName: name})
	}
	for name := range p.schemas.DataSourceSchemas {
		response.DataSources = append(response.DataSources, tfprotov5.DataSourceMetadata{TypeName: name})
	}
	return response, nil
}

func (p *provider) GetProviderSchema(
	context.Context, *tfprotov5.GetProviderSchemaRequest,
) (*tfprotov5.GetProviderSchemaResponse, error) {
	return p.schemas, nil
}

func (p *provider) GetResourceIdentitySchemas(
	context.Context, *tfprotov5.GetResourceIdentitySchemasRequest,
) (*tfprotov5.GetResourceIdentitySchemasResponse, error) {
	return &tfprotov5.GetResourceIdentitySchemasResponse{}, nil
}

func (p *provider) PrepareProviderConfig(
	_ context.Context, request *tfprotov5.PrepareProviderConfigRequest,
) (*tfprotov5.PrepareProviderConfigResponse, error) {
	return &tfprotov5.PrepareProviderConfigResponse{PreparedConfig: request.Config}, nil
}

func (p *provider) ValidateResourceTypeConfig(
	context.Context, *tfprotov5.ValidateResourceTypeConfigRequest,
) (*tfprotov5.ValidateResourceTypeConfigResponse, error) {
	return &tfprotov5.ValidateResourceTypeConfigResponse{}, nil
}

func (p *provider) ValidateDataSourceConfig(
	context.Context, *tfprotov5.ValidateDataSourceConfigRequest,
) (*tfprotov5.ValidateDataSourceConfigResponse, error) {
	return &tfprotov5.ValidateDataSourceConfigResponse{}, nil
}

func (p *provider) ConfigureProvider(
	context.Context, *tfprotov5.ConfigureProviderRequest,
) (*tfprotov5.ConfigureProviderResponse, error) {
	return nil, errNothingBehind
}

func (p *provider) StopProvider(
	context.Context, *tfprotov5.StopProviderRequest,
) (*tfprotov5.StopProviderResponse, error) {
	return &tfprotov5.StopProviderResponse{}, nil
}
