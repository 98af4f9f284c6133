//! Compact facts about the API: fields, merge keys, defaults, protobuf tags, OpenAPI
