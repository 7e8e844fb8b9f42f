"""S3's failures as errors that name the object, the reason and the fix."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from botocore import exceptions as aws
from urllib3.exceptions import HTTPError

from serve_app.errors import ConfigurationError, NotFoundError, ServeAppError, UnavailableError

SET_CREDENTIALS = (
    "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; in a pod, give its service account a role "
    "(IRSA or EKS Pod Identity)"
)
ACTIONS = "s3:ListBucket on the bucket, s3:GetObject to pull, s3:PutObject to push and s3:DeleteObject to prune"
USER_IN_URL = re.compile("//[^/@ ]*@")
MISSING = {"NoSuchKey", "404", "NotFound"}
NOT_MODIFIED = {"304", "NotModified"}
DENIED = {"AccessDenied", "403", "Forbidden", "AllAccessDisabled", "AccountProblem"}
BAD_CREDENTIALS = {
    "InvalidAccessKeyId": "S3 does not know the access key",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key",
    "ExpiredToken": "the credentials have expired",
    "ExpiredTokenException": "the credentials have expired",
    "InvalidToken": "the session token is not valid",
    "InvalidClientTokenId": "the credentials are not valid",
    "InvalidIdentityToken": "the service account's token is not accepted: check that the role trusts this cluster",
}
WRONG_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "301", "IllegalLocationConstraintException"}
BUSY = {"SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "InternalError", "ServiceUnavailable"}


@contextmanager
def translate_errors(what: str, endpoint: str = "") -> Iterator[None]:
    """Raise errors of this project that start with `what`, such as s3://bucket/prefix/current."""
    try:
        yield
    except aws.ClientError as problem:
        raise _of_response(problem, what) from None
    except (aws.NoCredentialsError, aws.NoAuthTokenError):
        raise ConfigurationError(f"{what}: no AWS credentials found: {SET_CREDENTIALS}") from None
    except (aws.PartialCredentialsError, aws.CredentialRetrievalError, aws.TokenRetrievalError, aws.SSOError):
        raise ConfigurationError(f"{what}: the AWS credentials are incomplete: {SET_CREDENTIALS}") from None
    except (aws.HTTPClientError, aws.ConnectionError, aws.IncompleteReadError, HTTPError) as problem:
        raise UnavailableError(f"{what}: {_of_network(problem, endpoint)}") from None
    except (aws.ProfileNotFound, aws.ConfigParseError, aws.ConfigNotFound) as problem:
        raise ConfigurationError(f"{what}: {problem}; check AWS_PROFILE and ~/.aws/config") from None
    except aws.BotoCoreError as problem:
        raise ConfigurationError(f"{what}: {without_password(str(problem))}") from None


def without_password(text: str) -> str:
    return USER_IN_URL.sub("//", text)


def code_of(problem: aws.ClientError) -> str:
    return str(problem.response.get("Error", {}).get("Code", ""))


def _of_response(problem: aws.ClientError, what: str) -> ServeAppError:
    metadata = problem.response.get("ResponseMetadata", {})
    code, action, status = code_of(problem), problem.operation_name, int(metadata.get("HTTPStatusCode", 0))
    if code == "NoSuchBucket":
        return ConfigurationError(f"{what}: the bucket does not exist: create it, or correct the URL")
    if code in MISSING:
        return NotFoundError(f"{what}: the object does not exist")
    if code in BAD_CREDENTIALS:
        return ConfigurationError(f"{what}: {BAD_CREDENTIALS[code]}: {SET_CREDENTIALS}")
    if code in DENIED:
        return ConfigurationError(f"{what}: access denied to {action}: the role needs {ACTIONS}")
    if code in WRONG_REGION:
        region = metadata.get("HTTPHeaders", {}).get("x-amz-bucket-region", "the bucket's")
        return ConfigurationError(f"{what}: the bucket is in another region: set AWS_REGION to {region}")
    if code in BUSY or status >= 500:
        return UnavailableError(f"{what}: S3 answered {code or status}: try again later")
    message = problem.response.get("Error", {}).get("Message", "")
    return ConfigurationError(f"{what}: S3 refused {action}: {code}: {message}")


def _of_network(problem: Exception, endpoint: str) -> str:
    parts = urlsplit(endpoint)
    host = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname or "S3"
    if isinstance(problem, aws.SSLError):
        return f"the certificate of {host} is not trusted: set AWS_CA_BUNDLE to its authority's certificate"
    if isinstance(problem, aws.ReadTimeoutError | aws.ConnectTimeoutError):
        return f"{host} did not answer in time: check that it is reachable from here"
    if isinstance(problem, aws.EndpointConnectionError | aws.ProxyConnectionError):
        return f"cannot connect to {host}: check the network, AWS_ENDPOINT_URL and AWS_REGION"
    return f"the connection to {host} broke"
