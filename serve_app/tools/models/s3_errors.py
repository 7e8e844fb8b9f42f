"""What keeps S3 from answering, in words: each of its failures as an error that says what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from botocore import exceptions as aws
from urllib3.exceptions import HTTPError

from serve_app.errors import ConfigurationError, NotFoundError, ServeAppError, UnavailableError

GIVE_CREDENTIALS = (
    "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; in a pod, give its service account a role "
    "(IRSA or EKS Pod Identity)"
)
USER_IN_URL = re.compile("//[^/@ ]*@")
MISSING = {"NoSuchKey", "404", "NotFound", "NoSuchUpload"}
NOT_MODIFIED = {"304", "NotModified"}
PAST_THE_END = {"416", "InvalidRange"}
DENIED = {"AccessDenied", "403", "Forbidden", "AllAccessDisabled", "AccountProblem"}
BAD_CREDENTIALS = {
    "InvalidAccessKeyId": "S3 doesn't know the access key",
    "SignatureDoesNotMatch": "the secret key doesn't belong to the access key",
    "ExpiredToken": "the credentials have expired",
    "ExpiredTokenException": "the credentials have expired",
    "InvalidToken": "the session token isn't valid",
    "InvalidClientTokenId": "the credentials aren't valid",
    "InvalidIdentityToken": "the service account's token isn't accepted: does the role trust this cluster?",
}
WRONG_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "301", "IllegalLocationConstraintException"}
BUSY = {"SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "InternalError", "ServiceUnavailable"}


@contextmanager
def told(what: str, endpoint: str = "") -> Iterator[None]:
    """`what` is the thing that is asked for, such as s3://bucket/prefix/current."""
    try:
        yield
    except aws.ClientError as problem:
        raise _of_answer(problem, what) from None
    except (aws.NoCredentialsError, aws.NoAuthTokenError):
        raise ConfigurationError(f"{what}: there are no AWS credentials: {GIVE_CREDENTIALS}") from None
    except (aws.PartialCredentialsError, aws.CredentialRetrievalError, aws.TokenRetrievalError, aws.SSOError):
        raise ConfigurationError(f"{what}: the AWS credentials can't be read in full: {GIVE_CREDENTIALS}") from None
    except (aws.HTTPClientError, aws.ConnectionError, aws.IncompleteReadError, HTTPError) as problem:
        raise UnavailableError(f"{what}: {_of_network(problem, endpoint)}") from None
    except (aws.ProfileNotFound, aws.ConfigParseError, aws.ConfigNotFound) as problem:
        raise ConfigurationError(f"{what}: {problem}; mend AWS_PROFILE or ~/.aws/config") from None
    except aws.BotoCoreError as problem:
        raise ConfigurationError(f"{what}: {USER_IN_URL.sub('//', str(problem))}") from None


def _of_answer(problem: aws.ClientError, what: str) -> ServeAppError:
    answer = problem.response
    error = answer.get("Error", {})
    code = _code(problem)
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "NoSuchBucket":
        return ConfigurationError(f"{what}: there is no such bucket: create it, or mend the URL")
    if code in MISSING:
        return NotFoundError(f"{what}: there is no such object")
    if code in BAD_CREDENTIALS:
        return ConfigurationError(f"{what}: {BAD_CREDENTIALS[code]}: {GIVE_CREDENTIALS}")
    if code in DENIED:
        return ConfigurationError(
            f"{what}: access denied to {problem.operation_name}: the role needs s3:ListBucket on the bucket, and on "
            "the prefix s3:GetObject to pull, s3:PutObject and s3:AbortMultipartUpload to push, s3:DeleteObject to "
            "prune"
        )
    if code in WRONG_REGION:
        region = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region", "the bucket's")
        return ConfigurationError(f"{what}: the bucket is in another region: set AWS_REGION to {region}")
    if code in BUSY or status >= 500:
        return UnavailableError(f"{what}: S3 answers {code or status}: try again later")
    return ConfigurationError(f"{what}: S3 refuses {problem.operation_name}: {code}: {error.get('Message', '')}")


def is_not_modified(problem: aws.ClientError) -> bool:
    return _code(problem) in NOT_MODIFIED


def is_past_the_end(problem: aws.ClientError) -> bool:
    return _code(problem) in PAST_THE_END


def _code(problem: aws.ClientError) -> str:
    return str(problem.response.get("Error", {}).get("Code", ""))


def _of_network(problem: Exception, endpoint: str) -> str:
    parts = urlsplit(endpoint)
    host = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname or "S3"
    if isinstance(problem, aws.SSLError):
        return f"{host} has no certificate that is trusted here: set AWS_CA_BUNDLE to its authority's"
    if isinstance(problem, aws.ReadTimeoutError | aws.ConnectTimeoutError):
        return f"{host} doesn't answer in time: is it reachable from here?"
    if isinstance(problem, aws.EndpointConnectionError | aws.ProxyConnectionError):
        return f"{host} can't be reached: check the network, AWS_ENDPOINT_URL and AWS_REGION"
    return f"the connection to {host} broke off"
